"""A study of a population: turns, copies, what is recorded, and going on after a death."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.machine import supervision
from algoperf.run_folder import checkpoint, crash_points, run_log
from algoperf.study import population, status
from algoperf.submission import search_space
from algoperf.trial import preservation
from scoring.report import Options, score

# Its rates span what learns nothing, what learns and what is too much. Both optimizers hold them.
SOURCE = """
import json
from pathlib import Path

DEFAULTS = {"learning_rate": 0.1, "momentum": 0.5}
SEARCH_SPACE = {
    "learning_rate": {"min": 0.001, "max": 1.0, "scaling": "log"},
    "momentum": {"feasible_points": [0.1, 0.5, 0.9]},
}


def torch_optimizer(params, hyperparameters):
    import torch

    optimizer = torch.optim.SGD(
        params.tensors(), lr=hyperparameters.learning_rate, momentum=hyperparameters.momentum
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)


def jax_optimizer(hyperparameters):
    import optax

    return optax.inject_hyperparams(optax.sgd)(
        learning_rate=hyperparameters.learning_rate, momentum=hyperparameters.momentum
    )


def eval_params(params, optimizer_state, hyperparameters):
    if hasattr(optimizer_state, "param_groups"):
        rate = optimizer_state.param_groups[0]["lr"]
    else:
        rate = float(optimizer_state.hyperparams["learning_rate"])
    with (Path(__file__).parent / "rates.txt").open("a") as file:
        file.write(f"{rate!r}\\n")
    return params
"""
MEMBERS, EVERY, STEPS = 3, 3, 8
WORDS = ["--tuning-ruleset", "population", "--trials", MEMBERS, "--exchange-every-steps", EVERY]
# Evaluated after steps 1, 4 and 8 for themselves, and after 3 and 6 for the exchanges.
WORDS += ["--max-steps", STEPS, "--eval-every-steps", 4]
DECAY = {"pytorch": 0.9, "jax": 1.0}  # of the rate, in a step


class Study:
    """`algoperf run` of that file in a folder of its own."""

    def __init__(self, folder, framework):
        self.folder, self.framework = folder, framework
        folder.mkdir(exist_ok=True)
        self.file = folder / "tuned.py"
        self.file.write_text(SOURCE)
        self.runs = folder / "runs"
        self.study = self.runs / f"mini-builtin/tuned/study_0/digits_{framework}"

    def words(self, *more):
        base = ["run", "--workload", "digits", "--submission", self.file, "--out", self.runs]
        return [str(word) for word in (*base, "--framework", self.framework, *WORDS, *more)]

    def __call__(self, *more):
        return commands.main(self.words(*more))

    def killed(self, at):
        """The exit code of the same in a process that dies at a crash point."""
        program = [sys.executable, "-m", "algoperf", *self.words()]
        variables = {**os.environ, crash_points.VARIABLE: at}
        return subprocess.run(program, env=variables, capture_output=True, check=False).returncode

    def document(self):
        return json.loads((self.study / run_log.POPULATION).read_text())

    def trials(self, name):
        paths = (self.study / f"trial_{member}" / name for member in range(1, MEMBERS + 1))
        return [json.loads(path.read_text()) for path in paths]

    def rows(self, member):
        with (self.study / f"trial_{member}" / "eval_measurements.csv").open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`made(framework)`: a whole study, of which there is one for all tests."""
    kept = {}

    def make(framework):
        if framework not in kept:
            kept[framework] = Study(tmp_path_factory.mktemp("population"), framework)
            assert kept[framework]() == 0
        return kept[framework]

    return make


frameworks = pytest.mark.parametrize("framework", ["pytorch", "jax"])


@frameworks
def test_the_worst_copies_the_best_after_each_round(made, framework):
    study = made(framework)
    document = study.document()
    assert (document["members"], document["every_steps"], document["share"]) == (3, 3, 0.25)
    assert [(each["round"], each["step"]) for each in document["rounds"]] == [(1, 3), (2, 6)]
    for each in document["rounds"]:
        values = {one["member"]: one["value"] for one in each["members"]}
        for member, value in values.items():
            (row,) = [
                row for row in study.rows(member) if float(row["global_step"]) == each["step"]
            ]
            assert float(row["validation/accuracy"]) == value
        (copy,) = each["copies"]  # A quarter of three is none, and one is the least.
        order = sorted(values, key=lambda member: -values[member])
        assert (copy["from"], copy["to"]) == (order[0], order[-1])
    assert document["ended"]["member"] is None
    assert document["ended"]["steps"] == MEMBERS * STEPS


@frameworks
def test_the_points_are_what_is_recorded_and_what_the_optimizer_holds(made, framework):
    study = made(framework)
    rates = iter([float(line) for line in (study.folder / "rates.txt").read_text().splitlines()])
    now = {}
    rounds = study.document()["rounds"]
    for number, steps in enumerate(([1, 3], [4, 6], [8])):
        if number == 0:
            drawn = search_space.parse(made_space(study), "the file")
            for member in range(1, MEMBERS + 1):
                now[member] = search_space.point(drawn, 0, 0, member - 1)
        else:
            (copy,) = rounds[number - 1]["copies"]
            assert copy["copied"] == now[copy["from"]]
            assert copy["old"] == now[copy["to"]]
            now[copy["to"]] = copy["new"]
        for member, step in itertools.product(range(1, MEMBERS + 1), steps):
            asked = now[member]["learning_rate"] * DECAY[framework] ** step
            assert next(rates) == pytest.approx(asked, rel=1e-6), (number, member, step)
    assert next(rates, None) is None
    assert study.trials("hparams.json") == [now[member] for member in sorted(now)]


def made_space(study):
    names = {}
    exec(study.file.read_text(), names)
    return names["SEARCH_SPACE"]


@frameworks
def test_the_clock_and_the_steps_stay_a_members_own(made, framework):
    study = made(framework)
    results = study.trials("result.json")
    for member, result in enumerate(results, 1):
        rows = study.rows(member)
        assert [float(row["global_step"]) for row in rows] == [1, 3, 4, 6, 8]
        clocks = [float(row["accumulated_submission_time"]) for row in rows]
        assert clocks == sorted(clocks)
        assert (result["status"], result["steps"], result["flags"]) == ("complete", STEPS, [])
        assert result["ledger"]["submission_s"] == pytest.approx(clocks[-1])
        assert not (study.study / f"trial_{member}" / checkpoint.FOLDER).exists()
        assert not (study.study / f"trial_{member}" / run_log.PAUSED).exists()
    total_s = sum(result["ledger"]["submission_s"] for result in results)
    assert study.document()["ended"]["submission_s"] == pytest.approx(total_s)
    assert len({result["parameters_crc32"] for result in results}) == MEMBERS


def without_times(document):
    """What `population.json` says without the clocks."""
    rounds = [
        {**each, "members": [(one["member"], one["value"]) for one in each["members"]]}
        for each in document["rounds"]
    ]
    return rounds, document["ended"]["steps"]


@pytest.mark.parametrize(
    "at",
    [
        "copied",  # The member's checkpoint is another's, and nothing says so yet.
        pytest.param("trial ended#2", marks=pytest.mark.slow),  # nor that it had its turn
        pytest.param("population written", marks=pytest.mark.slow),
        pytest.param("trial ended#5", marks=pytest.mark.slow),
        pytest.param("checkpoint kept", marks=pytest.mark.slow),  # in the trial's own process
    ],
)
def test_what_was_killed_goes_on_bit_for_bit(made, tmp_path, at):
    whole, study = made("pytorch"), Study(tmp_path, "pytorch")
    code = study.killed(at)
    assert code == (1 if at == "checkpoint kept" else -signal.SIGKILL)
    assert study() == 0
    assert without_times(study.document()) == without_times(whole.document())
    assert study.trials("hparams.json") == whole.trials("hparams.json")
    for mine, other in zip(study.trials("result.json"), whole.trials("result.json"), strict=True):
        for name in ("status", "steps", "final", "parameters_crc32", "seed"):
            assert mine[name] == other[name], name


def test_what_is_done_is_skipped_and_another_population_is_refused(made, capsys):
    study = made("pytorch")
    before = study.document()
    capsys.readouterr()
    assert study() == 0
    printed = capsys.readouterr()
    assert printed.err.count("done before (complete), skipped") == MEMBERS
    assert "study 0: no member reached the target; " in printed.out
    assert f"{MEMBERS * STEPS} steps of {MEMBERS} members in all" in printed.out
    assert study.document() == before
    assert study("--trials", 4) == 2
    assert "population.members: 3, now 4" in capsys.readouterr().err
    assert study("--exchange-share", 0) == 2
    assert "population.share: 0.25, now 0.0" in capsys.readouterr().err


def test_a_study_that_reaches_the_target_ends_and_is_timed_as_a_whole(tmp_path, capsys):
    study = Study(tmp_path, "pytorch")
    (tmp_path / "two.json").write_text(
        json.dumps([{"learning_rate": 1e-6}, {"learning_rate": 0.1}, {"learning_rate": 1e-6}])
    )
    words = ["run", "--workload", "digits", "--submission", "momentum", "--framework", "pytorch"]
    words += ["--tuning-ruleset", "population", "--trials", "3", "--exchange-every-steps", "150"]
    words += ["--search-space", str(tmp_path / "two.json"), "--out", str(study.runs)]
    words += ["--exchange-share", "0", "--eval-every-steps", "25"]
    assert commands.main(words) == 0
    folder = study.runs / "mini-builtin/momentum/study_0/digits_pytorch"
    results = {
        member: run_log.read_result(folder / f"trial_{member}")
        for member in (1, 2, 3)
        if (folder / f"trial_{member}").is_dir()
    }
    ended = json.loads((folder / run_log.POPULATION).read_text())["ended"]
    assert ended["member"] == 2
    states = {member: result["status"] for member, result in results.items()}
    assert states.pop(2) == "reached"
    assert set(states.values()) == {"stopped"}
    steps = results[2]["steps"]
    turns = -(-steps // 150)
    # The first had as many turns as the second, the third one less.
    assert results[1]["steps"] == 150 * turns
    assert (150 * (turns - 1) == results[3]["steps"]) if 3 in results else turns == 1
    total_s = results[2]["time_to_target_s"]
    total_s += sum(results[member]["ledger"]["submission_s"] for member in states)
    assert ended["submission_s"] == pytest.approx(total_s)
    assert ended["steps"] == sum(result["steps"] for result in results.values())
    assert "member 2 reached the target" in capsys.readouterr().out
    assert {each.state for each in status.read(study.runs)} <= {"reached", "stopped", "waiting"}

    scored = score([study.runs], Options(rules="by-the-rules"))
    (summary,) = scored.summaries
    assert "population tuning" in summary.board.pool.name
    (row,) = summary.board.rows
    (cell,) = row.cells["digits"].studies
    assert (cell.time_s, cell.step) == pytest.approx((total_s, ended["steps"]))
    with pytest.raises(UserError, match="--partial: what is still to come of a population"):
        score([study.runs], Options(partial=True))


MISTAKES = {
    "one member": (["--trials", "1"], "--trials 1: a population has at least 2 members"),
    "slice": (["--trial-range", "1:2"], "its members copy each other, so all of a study run"),
    "unsaved": (["--no-checkpoint"], "--no-checkpoint with --tuning-ruleset population"),
    "carbon": (["--carbon"], "--carbon with --tuning-ruleset population"),
    "contended": (["--rerun-contended"], "--rerun-contended with --tuning-ruleset population"),
    "share": (["--exchange-share", "0.6"], "exchange_share is 0.6, expected a number from 0 to"),
    "not a share": (["--exchange-share", "nan"], "expected a number from 0 to 0.5"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_does_not_go_with_a_population(tmp_path, capsys, name):
    more, text = MISTAKES[name]
    assert Study(tmp_path, "pytorch")(*more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert text in line
    assert not (tmp_path / "runs").exists()


def test_a_part_that_does_not_train_needs_weights_that_all_members_share(tmp_path, capsys):
    words = ["run", "--workload", "ag_news_lora", "--submission", "nadamw", "--out", str(tmp_path)]
    assert commands.main([*words, "--tuning-ruleset", "population"]) == 2
    assert "its members cannot copy each other; give --pretrained" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--exchange-every-steps", "--exchange-share"])
def test_what_goes_with_a_population_alone(tmp_path, capsys, option):
    words = ["run", "--workload", "digits", "--submission", "nadamw", "--out", str(tmp_path)]
    value = "1" if option.endswith("steps") else "0.5"
    assert commands.main([*words, option, value]) == 2
    assert f"{option} goes with --tuning-ruleset population" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"rounds": 3}', '{"rounds": [{"step": "a"}]}'])
def test_a_damaged_record_is_named(made, tmp_path, capsys, text):
    study = Study(tmp_path, "pytorch")
    shutil.copytree(made("pytorch").runs, study.runs)
    (study.study / run_log.POPULATION).write_text(text)
    assert study() == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{study.study / run_log.POPULATION} is damaged" in line
    assert "--overwrite" in line


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [
        (2, 0.25, 1),
        (3, 0.25, 1),
        (8, 0.25, 2),
        (9, 0.25, 2),
        (5, 0.5, 2),
        (4, 0, 0),
        (1, 0.5, 0),
        (0, 0.25, 0),
    ],
)
def test_how_many_copy_others(count, share, expected):
    assert population.copies(count, share) == expected


def test_a_round_is_a_tenth_of_the_step_hint():
    assert population.every_steps(None, 600) == 60
    assert population.every_steps(None, 7) == 1
    assert population.every_steps(25, 600) == 25


def tree(value):
    """A checkpoint whose four parts hold that value."""
    names = ("params", "model_state", "optimizer_state", "generators")
    items = [
        [
            {"kind": "value", "value": name},
            {"kind": "dict", "items": [["w", {"array": f"state/{name}/w"}]], "of": value},
        ]
        for name in names
    ]
    arrays = {f"state/{name}/w": np.full(2, value, np.float32) for name in names}
    return arrays, {"structure": {"kind": "dict", "items": items}, "position": {"step": value}}


def test_a_copy_takes_what_was_trained_and_nothing_else(tmp_path):
    theirs, own = (checkpoint.Checkpoints(tmp_path / name) for name in ("theirs", "own"))
    for each, value in ((theirs, 7), (own, 3)):
        (tmp_path / ("theirs" if value == 7 else "own")).mkdir()
        each.write(5, *tree(0))
        each.write(10, *tree(value))
    for _ in range(2):  # the second as after a death between copy and record
        assert preservation.copy(theirs, own, 10, {"rate": 0.5})
        ((arrays, document),) = own.read()  # The older one is of what the member was before.
        values = {name.split("/")[1]: array[0] for name, array in arrays.items()}
        assert values == {"params": 7, "model_state": 7, "optimizer_state": 7, "generators": 3}
        assert document["position"] == {"step": 3}
        assert document["copied"] == {"point": {"rate": 0.5}}
        nodes = {key["value"]: node["of"] for key, node in document["structure"]["items"]}
        assert nodes == {"params": 7, "model_state": 7, "optimizer_state": 7, "generators": 3}
    assert len(list(theirs.read())) == 2
    assert not preservation.copy(theirs, own, 11, {})


@pytest.mark.slow
def test_a_member_whose_copied_checkpoint_is_gone_does_not_start_over(tmp_path, capsys):
    study = Study(tmp_path, "pytorch")
    assert study.killed("population kept#2") == -signal.SIGKILL
    (copy,) = study.document()["rounds"][-1]["copies"]
    shutil.rmtree(study.study / f"trial_{copy['to']}" / checkpoint.FOLDER)
    waiting = {each.trial: each.state for each in status.read(study.runs)}
    assert set(waiting.values()) == {"interrupted"}
    with supervision.locked(study.study):
        assert {each.state for each in status.read(study.runs)} == {"waiting"}
        assert study() == 2
    assert "another process works on this trial" in capsys.readouterr().err
    assert study() == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "its checkpoint of step 6, copied from another member, is damaged or gone" in line
    assert study("--overwrite") == 0
    assert (study.study / f"replaced_0_{run_log.POPULATION}").is_file()
    assert study.document()["ended"]["steps"] == MEMBERS * STEPS
