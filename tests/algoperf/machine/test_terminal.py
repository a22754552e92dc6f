"""What is printed to a terminal that is gone ends nothing."""

import io
import os
import pty

import pytest

from algoperf.machine import terminal


def stream_to(descriptor):
    return io.TextIOWrapper(io.FileIO(descriptor, "wb"), encoding="utf-8", line_buffering=True)


def test_a_terminal_that_is_gone(monkeypatch):
    master, slave = pty.openpty()
    plain, errors = stream_to(os.dup(slave)), stream_to(slave)
    monkeypatch.setattr(terminal.sys, "stdout", plain)
    monkeypatch.setattr(terminal.sys, "stderr", errors)
    terminal.outlive(output=terminal.HUNG_UP, errors=terminal.UNREAD)
    terminal.sys.stdout.write("seen\n")
    assert os.read(master, 100) == b"seen\r\n"
    assert terminal.sys.stdout.isatty()
    os.close(master)
    with pytest.raises(OSError, match="Input/output error"):
        os.write(plain.fileno(), b"lost\n")
    terminal.sys.stdout.write("lost\n")
    terminal.sys.stderr.write("lost\n")
    plain.close()
    errors.close()


@pytest.mark.parametrize(
    ("lost", "is_raised"), [(terminal.HUNG_UP, True), (terminal.UNREAD, False)]
)
def test_a_pipe_that_nobody_reads(lost, is_raised):
    reader, writer = os.pipe()
    os.close(reader)
    file = terminal.LastingFile(writer, lost)
    if is_raised:
        with pytest.raises(BrokenPipeError):
            file.write(b"abc")
    else:
        assert file.write(b"abc") == 3
    os.close(writer)
