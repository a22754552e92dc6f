"""What a command makes of a signal before and after it has something to save."""

import os
import signal

import pytest

from algoperf.cli import commands
from algoperf.machine import stopping
from algoperf.machine.supervision import InterruptedRunError

pytestmark = pytest.mark.usefixtures("usual_handlers")

COMMANDS = {
    "run_command": ["run", "--workload", "digits", "--submission", "adamw"],
    "campaign_command": ["campaign", "--workload", "digits", "--out", "x"],
    "compare_command": ["compare", "digits"],
    "variants_command": ["variants", "axes"],
    "check_command": ["check", "adamw"],
}


@pytest.mark.parametrize("number", stopping.SIGNALS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_while_a_command_gets_ready(monkeypatch, capsys, command, number):
    def get_ready(arguments):
        with stopping.held_back():  # As where the process that started it held them back.
            os.kill(os.getpid(), number)
        raise AssertionError("it goes on")

    monkeypatch.setattr(commands, command, get_ready)
    assert commands.main(COMMANDS[command]) == 75
    assert (
        capsys.readouterr().err == "algoperf: stopped; nothing is lost, the same command goes on\n"
    )
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_while_the_handlers_are_put_back(monkeypatch):
    """As one that another thread was given: the main one answers it when it comes to it."""

    def signalled(number, handler):
        monkeypatch.undo()
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(stopping.StoppedError), stopping.leaving():
        monkeypatch.setattr(signal, "signal", signalled)
    handlers = {signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGXCPU)}
    assert handlers == {signal.SIG_DFL}


def test_a_signal_that_is_repeated_as_the_command_leaves(monkeypatch, capsys):
    def run(arguments):
        with stopping.Stops() as stops:
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            stops.check("the folder")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(commands, "run_command", run)
    assert commands.main(COMMANDS["run_command"]) == 75
    assert capsys.readouterr().err == (
        "algoperf: stopped; the folder is saved, and the same command goes on with it\n"
    )


def test_a_process_of_its_own_leaves_deaf(monkeypatch, capsys):
    """Python would else let a signal end it while it cleans up, and change its exit code."""

    def run(arguments):
        raise InterruptedRunError("the folder")

    monkeypatch.setattr(commands, "run_command", run)
    monkeypatch.setattr(commands.sys, "argv", ["algoperf", *COMMANDS["run_command"]])
    assert commands.main() == 75
    assert {signal.getsignal(number) for number in stopping.SIGNALS} == {signal.SIG_IGN}


def test_a_late_second_ctrl_c(monkeypatch, capsys):
    monkeypatch.setattr(stopping, "GRACE_S", 0.0)

    def run(arguments):
        with stopping.Stops(end=lambda: None):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(commands, "run_command", run)
    assert commands.main(COMMANDS["run_command"]) == 130
    assert "interrupted; what was measured is in the run folder" in capsys.readouterr().err
