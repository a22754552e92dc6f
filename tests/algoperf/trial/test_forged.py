"""Trainers that lie: what a referee makes of a process that may say anything to it.

Each is a thread at the far end of the line, which says what a submission could have its process
say. `Far` speaks the protocol as the library's own trainer does; each test changes a part of it.
"""

import json
import multiprocessing
import os
import shutil
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from algoperf.machine import supervision
from algoperf.run_folder import run_log
from algoperf.run_folder.checkpoint import Checkpoints
from algoperf.trial import bench as referees_bench
from algoperf.trial import far_trainer, handover, messages, refereed, seeds
from algoperf.trial.clock import Ledger
from algoperf.trial.plan import PROCESS, TrialPlan

SOURCE = "DEFAULTS = {'learning_rate': 0.1}\ndef torch_optimizer(params): ...\n"
STEPS = 4
ENDED = {
    "real_token_share": None,
    "flags": [],
    "peak_device_bytes": None,
    "communication_s": [],
}


class Far:
    """The far end of the line: an honest trainer that trains nothing, in `honest`."""

    def __init__(self, line, shared, bench, plan):
        self.line, self.shared, self.bench, self.plan = line, shared, bench, plan
        self.step, self.clock_s, self.answers = 0, 0.0, []
        self.saved_bytes, self.recompiled_s = 0, 0.0
        backend = bench.instruments.backend
        state = backend.random_state(seeds.pair(seeds.trial_seed(1, 0, plan.trial), seeds.INIT))
        self.params, self.model_state = bench.bound.workload.init_model_fn(state)
        self.signature = backend.signature(self.params, self.model_state)

    def send(self, kind, **values):
        self.line.send_bytes(json.dumps({"kind": kind, **values}).encode())

    def ask(self, kind, **values):
        self.send(kind, **values)
        self.answers.append(json.loads(self.line.recv_bytes()))
        return self.answers[-1]

    def hand_over(self):
        backend = self.bench.instruments.backend
        backend.write(self.params, self.model_state, self.shared.parameters())

    def load(self, **changes):
        self.ask("loading")
        files = {"cheat.py": self.plan.submission}
        point = {"point": {"learning_rate": 0.1}, "point_source": "its DEFAULTS", "note": ""}
        values = {"batch_size": 100, "source_files": files, "search_space": None}
        self.ask("submitted", **{**point, **values, **changes})

    def begin(self):
        self.hand_over()
        self.ask("begin", signature=self.signature)

    def initialise(self):
        self.hand_over()
        self.follow(self.ask("initialised", compiled_s=0.0))

    def follow(self, answer):
        """Have the own clock follow the referee's."""
        self.clock_s = answer["decision"]["totals"]["submission_s"]
        return answer["decision"]

    def ready(self, **changes):
        saved_bytes, self.saved_bytes = self.saved_bytes, 0
        answer = self.ask("ready", **{"flags": [], "saved_bytes": saved_bytes, **changes})
        self.went_at_s = time.perf_counter()
        return answer

    def segment(self, steps=1, **changes):
        self.step += steps
        self.hand_over()
        said = {
            "step": self.step,
            "evaluates": True,
            "is_last": self.step >= STEPS,
            "scalars": [],
            "signature": self.signature,
            "data_wait_s": 0.0,
            "recompiled_s": self.recompiled_s,
            "clock_s": self.clock_s + time.perf_counter() - self.went_at_s,
            "error": None,
        }
        return self.follow(self.ask("segment", **{**said, "has_finite_params": True, **changes}))

    def close(self, **changes):
        self.ask("closing", **{"interrupted": False, "checksum": 7, **ENDED, **changes})

    def start(self):
        self.load()
        self.begin()
        self.initialise()

    def train(self):
        """Train to the end, and return the last decision."""
        while True:
            self.ready()
            decision = self.segment()
            if decision["has_ended"]:
                return decision

    def honest(self):
        self.start()
        self.train()
        self.close()


class FakeTrainer(far_trainer.Trainer):
    """A `Trainer` whose process is a thread of this one."""

    def __init__(self, bench, plan, note):
        self.handover = handover.Handover(bench.context, bench.signature)
        self._note, self._killed_before = note, None
        self._line, far_end = multiprocessing.Pipe()
        sentinel, self._end = multiprocessing.Pipe()
        gone = {"join": lambda *_: None, "close": lambda: None, "exitcode": None}
        self._process = SimpleNamespace(sentinel=sentinel, **gone)
        self._followers = []
        self.process_id = os.getpid()
        self.pause = supervision.Pause(list)
        self.has_closed = False
        self.far = Far(far_end, self.handover, bench, plan)
        self._errors = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            type(self).script(self.far)
        except (EOFError, OSError):
            pass  # The referee has had enough.
        except BaseException as error:
            self._errors.append(error)
            raise
        finally:
            self.far.line.close()

    def processes(self):
        return []

    def ranks(self):
        return [os.getpid()]

    def end(self):
        self._line.close()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A bench that starts no process."""
    folder = tmp_path_factory.mktemp("forged")
    (folder / "cheat.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(referees_bench.forkserver, "ensure_running", lambda: None)
        yield folder, referees_bench.Bench(plan_of(folder))


def plan_of(folder, **changes):
    settings = {
        "workload": "digits",
        "scale": "mini",
        "data": "builtin",
        "source_kind": "builtin",
        "framework": "pytorch",
        "submission": str(folder / "cheat.py"),
        "study": 0,
        "trial": 1,
        "out": str(folder / "runs"),
        "experiment": "test",
        "seed": 1,
        "referee": PROCESS,
        "max_steps": STEPS,
        "eval_every_steps": 1,
        "checkpoints": False,
    }
    return TrialPlan(**{**settings, **changes})


@pytest.fixture
def referee(shared, monkeypatch):
    """Returns a function that has a referee judge a trainer's script, each in a folder anew."""
    folder, bench = shared
    monkeypatch.setattr(refereed, "Trainer", FakeTrainer)
    monkeypatch.setattr(far_trainer, "GRACE_S", 0.01)
    # What else runs on this machine is no part of these tests, and neither is how two threads of
    # one process take turns.
    monkeypatch.setattr(refereed, "CLOCK_S", 0.5)
    monkeypatch.setattr(refereed.load, "is_contended", lambda report: False)
    notes = []

    def judge(script, *, anew=True, **changes):
        if anew:
            shutil.rmtree(folder / "runs", ignore_errors=True)
        monkeypatch.setattr(FakeTrainer, "script", staticmethod(script), raising=False)
        plan = plan_of(folder, **changes)
        stops = SimpleNamespace(ask=None, are_asked=False)

        def report(event, metrics=None, **values):
            notes.extend([values["text"]] if event == "note" else [])

        judge.ledger = Ledger()
        return refereed.run(bench, plan, judge.ledger, report, stops)

    judge.bench, judge.notes = bench, notes
    judge.folder = folder / "runs/test/cheat/study_0/digits_pytorch/trial_1"
    return judge


def death(referee, script, **changes):
    """The cause of a trial that has failed by what its trainer did."""
    with pytest.raises(far_trainer.TrainerDiedError) as error:
        referee(script, **changes)
    assert error.value.error["outside"] is False
    return error.value.error["cause"]


def test_an_honest_trainer_is_not_flagged(referee):
    ended = referee(Far.honest)
    assert (ended["status"], ended["steps"], ended["flags"]) == ("complete", STEPS, [])
    assert len(run_log.evaluations(referee.folder)) == STEPS


# Prevented: it fails the trial, or changes nothing.


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"{", "the trainer's message is not valid: no JSON (JSONDecodeError)"),
        (b"[" * 100_000, "the trainer's message is not valid: no JSON (RecursionError)"),
        (b'"segment"', "the trainer's message is not valid: no JSON object, but 'segment'"),
        (b'{"kind": "segment"}', "the trainer's message is not valid: 'segment' without 'step'"),
        (b'{"kind": ["segment"]}', "the trainer said \"['segment']\", expected segment"),
        (b'{"kind": "ready"}', "the trainer said 'ready', expected segment"),
        (b'{"kind": "died", "error": {}}', "the trainer said 'died', expected segment"),
        (b'{"kind": "closing", "interrupted": true}', "the trainer said 'closing', expected"),
    ],
)
def test_what_is_no_message_fails_the_trial(referee, line, cause):
    def script(far):
        far.start()
        far.ready()
        far.line.send_bytes(line)
        far.line.recv_bytes()

    assert death(referee, script).startswith(cause)


def test_a_line_that_is_closed_fails_the_trial(referee):
    def closes(far):
        far.start()
        far.ready()
        far.line.close()

    assert death(referee, closes) == "the trainer closed its line to the referee"

    def says_too_much(far):
        far.start()
        far.ready()
        # The size of what never comes: more than a referee is ready to hold in memory.
        os.write(far.line.fileno(), (1 << 30).to_bytes(4, "big"))
        far.line.recv_bytes()

    assert death(referee, says_too_much) == "the trainer closed its line to the referee"


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_end_before_the_trial_has_one(referee, interrupted):
    """Whoever ends early has no result; whoever says that it was asked to has none either."""

    def script(far):
        far.start()
        far.ready()
        far.segment()
        far.close(interrupted=interrupted)

    if interrupted:
        assert referee(script) is None
        assert run_log.read_result(referee.folder) is None
    else:
        assert death(referee, script) == "the trainer ended before its trial did"


def test_going_on_after_the_end(referee):
    def script(far):
        far.start()
        far.train()
        far.ready()

    assert death(referee, script) == "the trainer went on after its trial's end"


def test_steps_only_go_up_and_stay_within_the_limit(referee):
    def back(far):
        far.start()
        for step in (2, 1):
            far.ready()
            far.segment(step=step, is_last=False)

    assert death(referee, back) == "the trainer's step went from 2 back to 1"

    def beyond(far):
        far.start()
        far.ready()
        far.segment(step=STEPS + 1)

    assert death(referee, beyond) == f"the trainer made step {STEPS + 1} of {STEPS}"


def test_the_clock_is_the_referees(referee, monkeypatch):
    """Whatever the trainer says of its own: 80 ms of waiting are on the clock, and the lie seen."""
    monkeypatch.setattr(refereed, "CLOCK_S", 0.005)

    def script(far):
        far.start()
        far.ready()
        time.sleep(0.08)
        far.segment(is_last=True, step=1, clock_s=0.001, data_wait_s=0.0)
        far.close()

    ended = referee(script)
    assert ended["ledger"]["submission_s"] >= 0.08
    (flag,) = ended["flags"]
    assert flag.startswith("the trainer's own clock differs by +0.")


def test_scalars_are_read_on_the_clock(referee, monkeypatch):
    """A step that is queued as a scalar is finished before the segment is said, so it is paid; and
    so is the reading of all that is logged.
    """
    runs, parse = {}, messages.parse

    def parsed(line):
        values = parse(line)
        runs[values["kind"]] = referee.ledger.submission._started_at_s is not None
        return values

    monkeypatch.setattr(messages, "parse", parsed)
    referee(Far.honest)
    assert {kind for kind, is_running in runs.items() if is_running} == {"segment"}


def test_no_recompilation_is_forgiven_that_was_not_charged(referee):
    """A trial that was never interrupted has nothing to compile again."""

    def script(far):
        far.start()
        far.ready()
        time.sleep(0.05)
        far.segment(is_last=True, step=1, recompiled_s=1000.0)
        far.close()

    ledger = referee(script)["ledger"]
    assert ledger["recompilation_s"] == 0.0
    assert ledger["submission_s"] >= 0.05


def test_the_checksum_of_parameters_is_the_trainers_word_and_decides_nothing(referee):
    ended = referee(lambda far: (far.start(), far.train(), far.close(checksum=12345)))
    assert ended["parameters_crc32"] == 12345
    rows = run_log.evaluations(referee.folder)
    assert rows[-1]["validation/loss"] == ended["final"]["validation/loss"]


def test_metrics_are_those_of_the_parameters_that_were_handed_over(referee):
    """Whatever was made of model, module or metric on the other side: these bytes are measured."""
    honest = referee(Far.honest)["final"]

    def script(far):
        far.start()
        far.ready()
        for tensor in far.params.parameters():
            tensor.data.zero_()
        far.segment(is_last=True, step=1)
        far.close()

    zeros = referee(script)["final"]
    # Ten classes, each as likely: ln 10.
    assert zeros["validation/loss"] == pytest.approx(2.302585, abs=1e-5)
    assert honest["validation/loss"] != zeros["validation/loss"]


def test_parameters_that_are_not_finite_whatever_is_said_of_them(referee):
    def script(far):
        far.start()
        far.ready()
        next(far.params.parameters()).data.fill_(np.nan)
        far.segment(has_finite_params=True)
        far.close()

    ended = referee(script)
    assert ended["status"] == "diverged"
    assert "parameters" in ended["not_finite"]


def test_a_forged_signature_fails_the_trial(referee):
    def script(far):
        far.start()
        far.ready()
        name = next(iter(far.signature))
        far.segment(signature={**far.signature, name: [[1, 2], "torch.float32"]})
        far.close()

    ended = referee(script)
    assert ended["status"] == "failed"
    assert ended["error"]["cause"].startswith("update_params changed the parameters: ")


def test_training_in_the_initialisation(referee):
    """Changed parameters fail the trial; time beyond the free one is on the clock."""

    def changes(far):
        far.load()
        far.begin()
        next(far.params.parameters()).data += 1
        far.initialise()
        far.close()

    ended = referee(changes)
    assert ended["error"]["cause"] == "init_optimizer_state changed the parameters"

    def works(far):
        far.load()
        far.begin()
        time.sleep(0.4)
        far.initialise()
        far.train()
        far.close()

    ledger = referee(works)["ledger"]
    assert 0.25 < ledger["charged_s"] <= ledger["submission_s"]


def test_other_first_parameters_than_the_seeds(referee):
    def script(far):
        far.load()
        next(far.params.parameters()).data += 1
        far.begin()
        far.initialise()
        far.close()

    cause = "the model's first parameters are not those of its seed"
    assert referee(script)["error"]["cause"] == cause


def test_source_files_of_another_name_or_place(referee, shared):
    """The copy in the run folder is of the submission's files, under their own names."""
    folder, _ = shared
    (folder / "other.txt").write_text("nicer\n")

    def script(far):
        files = {
            "cheat.py": str(folder / "other.txt"),
            "../../../../escaped.py": far.plan.submission,
        }
        far.load(source_files={**files, "gone.py": "/gone.py", "odd": "\0"})
        far.begin()
        far.initialise()
        far.train()
        far.close()

    referee(script)
    copied = {path.name: path.read_text() for path in (referee.folder / "submission").iterdir()}
    assert copied == {"cheat.py": SOURCE, "other.txt": "nicer\n"}
    assert not list(folder.rglob("escaped.py"))


# Gets through


def test_steps_are_the_trainers_word(referee):
    """A hundred that are said to be one: nobody outside can count them. No time is gained by it."""

    def script(far):
        far.start()
        far.ready()
        for _ in range(100):
            next(far.params.parameters()).data.mul_(0.99)
        far.segment(step=1, is_last=True)
        far.close()

    ended = referee(script)
    assert (ended["steps"], ended["flags"]) == (1, [])


def test_a_little_of_everything_that_is_free(referee):
    """Work that stays below each limit: while it is loaded, initialised, and between stretches."""

    def script(far):
        far.ask("loading")
        time.sleep(0.2)
        asked = far.ask
        far.ask = lambda kind, **values: {} if kind == "loading" else asked(kind, **values)
        far.load()
        far.begin()
        time.sleep(0.05)
        far.initialise()
        time.sleep(0.2)
        far.train()
        far.close()

    ended = referee(script)
    assert (ended["status"], ended["flags"], ended["ledger"]["charged_s"]) == ("complete", [], 0.0)


def test_a_run_folder_that_is_edited_in_all_its_parts(resumed, referee):
    """Who edits a checkpoint and the rows beside it alike, between two processes of a trial, has
    what he wants: the folder is all that the second process knows.
    """

    def second(far):
        path = referee.folder / run_log.EVALUATIONS
        going_on(far)
        assert path.is_file()

    assert referee(saving(2), checkpoints=True) is None
    path, checkpoints = referee.folder / run_log.EVALUATIONS, Checkpoints(referee.folder)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *("0.0" + row[row.index(",") :] for row in rows)]) + "\n")
    document = checkpoints.newest_document()
    position = document["position"]
    position["ledger"]["submission_s"] = 0.0
    position["evaluations"] = [[step, 0.0, metrics] for step, _, metrics in position["evaluations"]]
    document["files"][path.name] = path.stat().st_size
    for old in checkpoints._folder.iterdir():
        old.unlink()
    checkpoints.write(2, {"a": np.zeros(3)}, document)
    ended = referee(second, anew=False, checkpoints=True)
    assert (ended["status"], ended["flags"]) == ("complete", [])
    assert run_log.evaluations(referee.folder)[1]["accumulated_submission_time"] == 0.0


# Flagged


def test_an_evaluation_before_it_is_due(referee, monkeypatch):
    monkeypatch.setattr(refereed, "CLOCK_S", 0.02)
    flag = "an evaluation was asked for before it was due"

    def between(far):  # of 2 and 4
        far.start()
        far.ready()
        far.segment(steps=1)
        far.ready()
        far.segment(steps=2)
        far.train()
        far.close()

    assert referee(between, eval_every_steps=2)["flags"] == [flag]

    def by_time(far):
        far.start()
        for _ in range(3):
            far.ready()
            far.segment(is_last=False)
        far.train()
        far.close()

    assert referee(by_time, eval_every_steps=None)["flags"] == [flag]

    def always_the_first(far):
        far.start()
        for _ in range(2):
            far.ready()
            far.segment(step=1, is_last=False)
        far.step = 1
        far.train()
        far.close()

    assert referee(always_the_first, eval_every_steps=None)["flags"] == [flag]


def test_work_while_the_clock_stands_still(referee, monkeypatch):
    """Said to be the saving of a gigabyte, which no file has."""
    monkeypatch.setattr(refereed, "OFF_CLOCK_S", 0.05)

    def script(far):
        far.start()
        far.ready()
        far.segment()
        time.sleep(0.3)
        if far.plan.checkpoints:  # a file of a few hundred bytes
            far.folder = referee.folder
            save(far)
        far.saved_bytes = 1 << 30
        far.train()
        far.close()

    for saves in (False, True):
        (flag,) = referee(script, checkpoints=saves)["flags"]
        assert flag.startswith("the trainer worked 0.")
        assert flag.endswith(" s while the clock stood still")


def test_parts_are_put_together_off_the_clock(referee, monkeypatch):
    """By processes that have parts of each parameter, for the checksum of the last ones."""
    monkeypatch.setattr(refereed, "OFF_CLOCK_S", 0.05)
    monkeypatch.setattr(refereed, "GATHERING_S_PER_NUMBER", 1e-3)

    def script(far):
        far.start()
        far.train()
        time.sleep(0.3)
        far.close()

    assert referee(script, shard="parameters")["flags"] == []
    (flag,) = referee(script, shard="optimizer")["flags"]
    assert flag.startswith("the trainer worked 0.")


def test_work_while_the_submission_is_loaded(referee, monkeypatch):
    monkeypatch.setattr(refereed, "LOADING_S", 0.2)

    def script(far):
        time.sleep(0.1)
        far.ask("loading")
        time.sleep(0.4)
        far.ask = lambda kind, **values: {} if kind == "loading" else Far.ask(far, kind, **values)
        far.start()
        far.train()
        far.close()

    (flag,) = referee(script)["flags"]
    assert flag.startswith("the submission took 0.")
    assert flag.endswith(" s to be loaded, before its clock")


def test_source_that_is_rewritten_while_it_is_loaded(referee, shared):
    folder, _ = shared

    def script(far):
        (folder / "cheat.py").write_text(SOURCE + "# honest\n")
        far.honest()

    try:
        flags = referee(script)["flags"]
    finally:
        (folder / "cheat.py").write_text(SOURCE)
    assert flags == ["the submission's source was changed while it was loaded"]


def test_training_rows_that_are_written_to(referee):
    """Flagged, and the trial after it has the rows as they were."""
    rows = referee.bench.shared_rows
    before = {name: array.copy() for name, array in rows.rows().items()}

    def script(far):
        far.start()
        for array in rows._block.arrays().values():
            array[:3] = 1
        far.train()
        far.close()

    assert referee(script)["flags"] == ["the training rows were changed in memory"]
    for name, array in rows.rows().items():
        assert np.array_equal(array, before[name])
    assert referee(Far.honest)["flags"] == []


def test_parameters_that_change_while_they_are_evaluated(referee, monkeypatch):
    """By a process that escapes the pause, which has the shared memory open."""
    evaluator = referee.bench.evaluator
    measure = type(evaluator).__call__ if callable(evaluator) else None
    assert measure is not None
    trainers = []
    start = FakeTrainer.__init__

    def keep(self, *arguments):
        start(self, *arguments)
        trainers.append(self)

    def measured(self, *arguments, **more):
        for values in trainers[-1].handover.parameters().values():
            values[:4] = 0
        return measure(self, *arguments, **more)

    monkeypatch.setattr(FakeTrainer, "__init__", keep)
    monkeypatch.setattr(type(evaluator), "__call__", measured)
    assert referee(Far.honest)["flags"] == ["the parameters changed while they were evaluated"]


def test_rows_in_the_run_folder_that_are_edited(referee):
    path = referee.folder / run_log.EVALUATIONS

    def script(far):
        far.start()
        far.ready()
        far.segment()
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], "0.0" + lines[1][lines[1].index(",") :]]) + "\n")
        far.train()
        far.close()

    flag = "the evaluations in the run folder are not those that were measured"
    assert referee(script)["flags"] == [flag]


def save(far, document=None, **changes):
    """Save a trial as the library's trainer does."""
    kept = far.answers[-1]["kept"]
    document = {
        "format": 2,
        "structure": {},
        "compiled_s": 0.0,
        **{name: kept[name] for name in ("files", "resources", "load")},
        "position": {"step": far.step, "queue": {}, **kept["position"], **changes},
        **(document or {}),
    }
    far.saved_bytes = Checkpoints(far.folder).write(far.step, {"a": np.zeros(3)}, document)


def train_a_stretch(far):
    """Begin a trial that is going to be saved, and train until it can be for the first time."""
    far.folder = far.bench_folder
    far.start()
    far.ready()
    far.segment()


def saving(steps, *, document=None, **changes):
    """A trainer that is saved after each of so many steps, and is then interrupted."""

    def script(far):
        far.start()
        far.folder = far.bench_folder
        for _ in range(steps):
            far.ready()
            far.segment()
            save(far, document, **changes)
        far.close(interrupted=True)

    return script


@pytest.fixture
def resumed(referee, monkeypatch):
    """Returns a function that runs a trial with one script, and goes on with another."""
    monkeypatch.setattr(Far, "bench_folder", referee.folder, raising=False)

    def run(first, second):
        assert referee(first, checkpoints=True) is None
        return referee(second, anew=False, checkpoints=True)

    return run


def going_on(far):
    far.start()
    far.step = far.answers[-1]["decision"]["metrics"] is None and 2
    far.train()
    far.close()


def test_an_honest_trial_goes_on_without_a_flag(resumed):
    ended = resumed(saving(2), going_on)
    assert (ended["status"], ended["steps"], ended["flags"]) == ("complete", STEPS, [])


def test_a_forged_checkpoint_just_before_an_interruption_is_not_gone_on_from(resumed, referee):
    """Nobody is there to keep its flag, so the trial starts over."""

    def first(far):
        train_a_stretch(far)
        save(far, due_s=1e6)
        far.close(interrupted=True)

    ended = resumed(first, Far.honest)
    assert (ended["status"], ended["flags"]) == ("complete", [])
    assert (referee.folder / "interrupted_0").is_dir()


def test_a_checkpoint_of_another_step_with_earlier_times(resumed, referee):
    """What was given at step 1 is no clock for the parameters of step 2."""

    def first(far):
        train_a_stretch(far)
        earlier = far.answers[-1]
        save(far)
        far.ready()
        far.segment()
        far.answers.append(earlier)
        save(far)
        far.ready()
        far.segment(evaluates=False)
        save(far)
        far.close(interrupted=True)

    def second(far):
        far.start()
        far.step = 3
        far.train()
        far.close()

    flag = "a checkpoint has other times than those that were measured"
    assert resumed(first, second)["flags"] == [flag]


@pytest.mark.parametrize("changes", [{"due_s": 1e6}, {"step": 0}, {"evaluations": []}])
def test_a_checkpoint_with_other_times_is_flagged_and_stays_so(resumed, changes):
    """The flag is for what was saved; a process later, the trial has it still."""

    def first(far):
        train_a_stretch(far)
        save(far, **changes)
        far.ready()
        far.segment()
        save(far)
        far.close(interrupted=True)

    ended = resumed(first, going_on)
    assert ended["flags"] == ["a checkpoint has other times than those that were measured"]


def test_no_more_is_forgiven_than_was_charged_before(resumed):
    """Whatever a checkpoint says was compiled: nothing is free that was not paid once."""

    def second(far):
        far.start()
        far.step = 2
        far.ready()
        time.sleep(0.3)
        far.segment(recompiled_s=1000.0, is_last=True)
        far.close()

    ledger = resumed(saving(2, document={"compiled_s": 1e9}), second)["ledger"]
    assert ledger["submission_s"] >= 0.3
    assert 0 < ledger["recompilation_s"] < 0.3


def test_a_checkpoint_that_is_edited_against_the_rows_beside_it(resumed, referee):
    """Saved honestly, edited by another process after that: its evaluations are not the rows'."""

    def second(far):
        going_on(far)

    def first(far):
        saving(2)(far)

    assert referee(first, checkpoints=True) is None
    checkpoints = Checkpoints(referee.folder)
    document = checkpoints.newest_document()
    document["position"]["ledger"]["submission_s"] = 0.0
    checkpoints.write(2, {"a": np.zeros(3)}, document)
    newest = max(checkpoints._folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for path in checkpoints._folder.iterdir():
        if path != newest:
            path.unlink()
    flag = "the evaluations in the run folder are not those that were measured"
    assert referee(second, anew=False, checkpoints=True)["flags"] == [flag]


@pytest.mark.parametrize(
    "changes",
    [{"position": []}, {"position": {}}, {"compiled_s": "long"}, {"load": {"segments": 3}}],
)
def test_a_checkpoint_that_nobody_of_ours_wrote(referee, changes, monkeypatch):
    monkeypatch.setattr(Far, "bench_folder", referee.folder, raising=False)
    assert referee(saving(2), checkpoints=True) is None
    checkpoints = Checkpoints(referee.folder)
    document = {**checkpoints.newest_document(), **changes}
    for path in checkpoints._folder.iterdir():
        path.unlink()
    checkpoints.write(2, {"a": np.zeros(3)}, document)
    from algoperf.errors import UserError

    with pytest.raises(UserError, match="its checkpoint is not one that the library wrote"):
        referee(going_on, anew=False, checkpoints=True)
