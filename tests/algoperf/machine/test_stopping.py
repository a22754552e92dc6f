"""The signals that ask a process to stop are remembered, and none of them is lost."""

import signal
import subprocess
import sys
import threading

import pytest

from algoperf.machine import stopping
from algoperf.machine.stopping import Stops
from algoperf.machine.supervision import InterruptedRunError

pytestmark = pytest.mark.usefixtures("usual_handlers")


def test_the_signals_that_batch_systems_send():
    names = {number.name for number in stopping.SIGNALS}
    assert names == {"SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"}


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_the_first_is_passed_on_and_the_rest_change_nothing(number):
    asked = []
    with Stops(lambda: asked.append("ask"), lambda: asked.append("end")) as stops:
        stops.check("nothing")
        for each in (number, *stopping.SIGNALS):
            signal.raise_signal(each)
    assert asked == ["ask"]
    with pytest.raises(InterruptedRunError, match="the folder"):
        stops.check("the folder")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_within_the_answer_to_another():
    """A lock that is not the same thread's to take again would stop here for ever."""
    asked = []

    def ask():
        asked.append("ask")
        signal.raise_signal(signal.SIGUSR1)

    with Stops(ask):
        signal.raise_signal(signal.SIGTERM)
    assert asked == ["ask"]


@pytest.mark.parametrize(
    ("age_s", "number", "ends"),
    [
        (stopping.GRACE_S - 1, signal.SIGINT, False),
        (stopping.GRACE_S + 1, signal.SIGINT, True),
        (stopping.GRACE_S + 1, signal.SIGTERM, False),
        (stopping.GRACE_S + 1, signal.SIGUSR1, False),
    ],
)
def test_only_a_late_ctrl_c_ends_at_once(age_s, number, ends):
    asked = []
    with Stops(lambda: asked.append("ask"), lambda: asked.append("end")) as stops:
        signal.raise_signal(signal.SIGTERM)
        stops.asked_at_s -= age_s
        if ends:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        else:
            signal.raise_signal(number)
    assert asked == ["ask", "end"][: 1 + ends]


def test_a_trial_is_not_ended_by_a_late_ctrl_c():
    with Stops() as stops:
        signal.raise_signal(signal.SIGINT)
        stops.asked_at_s -= 100
        signal.raise_signal(signal.SIGINT)


def test_what_surrounds_it_knows():
    """The command, which the same signals would else interrupt as it says what is saved."""
    with stopping.leaving() as command:
        with Stops() as study:
            signal.raise_signal(signal.SIGTERM)
        assert study.are_asked
        assert command.are_asked
        signal.raise_signal(signal.SIGUSR1)


def test_where_nothing_is_to_be_saved_the_first_ends_it():
    with stopping.leaving() as command, pytest.raises(stopping.StoppedError):
        signal.raise_signal(signal.SIGHUP)
    assert command.are_asked
    assert issubclass(stopping.StoppedError, KeyboardInterrupt)


def test_ignored_signals_and_the_handlers_of_other_languages_stay(monkeypatch):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    known = signal.getsignal
    monkeypatch.setattr(
        signal, "getsignal", lambda number: None if number == signal.SIGUSR1 else known(number)
    )
    with Stops() as stops:
        assert known(signal.SIGHUP) is signal.SIG_IGN
        assert known(signal.SIGUSR1) is signal.SIG_DFL
        signal.raise_signal(signal.SIGHUP)
    assert not stops.are_asked


def test_a_process_that_exits_may_leave_them_ignored():
    with Stops() as stops:
        stops.ignores_afterwards = True
    assert {signal.getsignal(number) for number in stopping.SIGNALS} == {signal.SIG_IGN}


def test_in_another_thread_nothing_is_answered():
    seen = []

    def enter():
        with Stops():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


FORKS = """
import os, signal
from algoperf.machine.stopping import Stops

with Stops() as stops:
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)
    _, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
assert not stops.are_asked
"""


def test_a_fork_answers_for_itself_alone():
    """As what multiprocessing starts and then terminates; a process with JAX must not fork."""
    subprocess.run([sys.executable, "-c", FORKS], check=True)


def test_a_process_that_starts_loses_no_signal():
    code = "from algoperf.machine import stopping\nwith stopping.Stops() as stops:\n"
    code += "    stopping.let_through()\nprint(stops.are_asked)"
    with stopping.held_back():
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    process.terminate()
    assert process.communicate() == ("True\n", None)
    assert not set(stopping.SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize(
    ("code", "was_asked", "stopped"),
    [
        *((75, False, True), (-15, False, True), (-10, False, True), (-1, False, True)),
        *((143, True, True), (143, False, False), (-9, True, True), (-9, False, False)),
        *((-11, True, False), (1, True, False), (0, True, False)),
    ],
)
def test_who_was_stopped_has_not_failed(code, was_asked, stopped):
    assert stopping.has_stopped(code, was_asked) is stopped
