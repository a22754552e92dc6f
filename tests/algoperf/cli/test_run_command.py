"""`algoperf run` around its trials, which are made up here: several runs in one call, exit codes,
what is told when a trial ends, and what is claimed in the end.
"""

import json
from pathlib import Path

import pytest

import algoperf
from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.machine.supervision import InterruptedRunError
from algoperf.run_folder import run_log, writing
from algoperf.study import run_plan, study

TARGET = {"metric": "accuracy", "validation": 0.97, "higher_is_better": True}


class Trials:
    """Stands for `study.run`: what becomes of a trial is looked up in `ends`, by its number.

    An end is a result's changes, or an exception that is raised.
    """

    def __init__(self):
        self.ends, self.done, self.calls = {}, set(), []

    def __call__(self, base, outline, chosen, observe, failed, companions, overwrite, *_):
        results = []
        for number, trial in chosen:
            name = f"{outline.name} {base.workload} {base.framework} {number} {trial}"
            self.calls.append((name, overwrite))
            end = self.ends.get(name, self.ends.get(trial, {}))
            if isinstance(end, Exception):
                raise end
            plan = study.dataclasses.replace(base, study=number, trial=trial)
            folder = study.trial_folder(plan, outline)
            result = self.result(plan, outline.name, trial) | end
            point = {"learning_rate": trial / 100, "decay": 0.5}
            folder.mkdir(parents=True, exist_ok=True)
            run_log.write_json(folder / run_log.HYPERPARAMETERS, point)
            results.append(result)
            if name in self.done:
                observe(plan, {"event": "skip", "result": result})
                continue
            place = {"folder": str(folder), "step": 0, "clock_s": 0.0}
            told = {"point": point, "point_source": f"point {trial} drawn from its SEARCH_SPACE"}
            limits = {"budget_s": 15.0, "max_steps": None, "target": TARGET}
            observe(plan, {"event": "start", **place, **told, **limits})
            observe(plan, {"event": "result", "result": result})
        return results

    def result(self, plan, name, trial):
        names = {"workload": plan.workload, "framework": plan.framework, "submission": name}
        return {
            **names,
            "study": plan.study,
            "trial": trial,
            "status": "reached",
            "scoreable": True,
            "time_to_target_s": 4.0 / trial,
            "steps_to_target": 30,
            "steps": 30,
            "last_miss": None,
            "best": {"validation/accuracy": 0.98, "step": 30},
            "target": TARGET,
            "budget_s": 15.0,
            "final": {"validation/accuracy": 0.98},
            "ledger": {},
            "error": None,
        }


@pytest.fixture
def trials(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made_up = Trials()
    monkeypatch.setattr(run_plan.study, "run", made_up)
    return made_up


@pytest.fixture
def run(trials, capsys):
    """`run(*words)`: exit code, lines of standard output and of standard error."""

    def call(*words):
        code = commands.main(["run", *map(str, words)])
        shown = capsys.readouterr()
        return code, shown.out.splitlines(), shown.err.splitlines()

    return call


DIGITS = ("--workload", "digits", "--submission", "nadamw", "--framework", "jax")
TWO_BY_TWO = ("--workload", "digits,ag_news", "--submission", "adamw", "--framework", "jax,pytorch")


def test_each_trial_is_told_when_it_ends_and_all_in_a_table(run, trials):
    code, out, err = run(*DIGITS, "--tuning-ruleset", "external", "--trials", 2)
    assert code == 0
    assert err[1:] == [
        "digits jax study 0 trial 1 (1 of 2): point 1 drawn from its SEARCH_SPACE",
        "  decay 0.5, learning_rate 0.01",
        "digits jax study 0 trial 2 (2 of 2): point 2 drawn from its SEARCH_SPACE",
        "  decay 0.5, learning_rate 0.02",
    ]
    reached = "reached target accuracy 0.97 after"
    assert out[:2] == [
        f"digits jax nadamw study 0 trial 1: {reached} 4.00 s, 30 steps",
        f"digits jax nadamw study 0 trial 2: {reached} 2.00 s, 30 steps",
    ]
    assert max(map(len, out[2:-2])) <= 80
    assert "nadamw on digits in jax, study 0" in out[3]
    assert out[-3:] == [
        "the same in all: decay 0.5",
        "best of 2 (*): study 0 trial 2, target after 2.00 s, 30 steps, at decay 0.5, "
        "learning_rate 0.02",
        "runs are in runs/mini-builtin; score them with: algoperf score runs",
    ]


def test_the_end_of_a_trial_is_told_before_the_next_starts(trials, monkeypatch):
    lines = []
    monkeypatch.setattr("sys.stdout.write", lambda text: lines.append(text), raising=False)
    begun = []
    original = Trials.result

    def result(self, plan, name, trial):
        begun.append("".join(lines).count("reached target"))
        return original(self, plan, name, trial)

    monkeypatch.setattr(Trials, "result", result)
    commands.main(["run", *DIGITS, "--trials", "3"])
    assert begun == [0, 1, 2]


def test_one_trial_that_was_done_before_is_told_in_full(run, trials):
    trials.done.add("nadamw digits jax 0 1")
    code, out, err = run(*DIGITS)
    assert (code, len(out)) == (0, 3)
    assert out[0].startswith("digits jax nadamw study 0 trial 1: reached")
    assert out[1] == "  last evaluation: validation/accuracy 0.9800"
    assert err[-1] == "digits jax study 0 trial 1: done before (reached), skipped"


def test_several_runs_in_one_call(run, trials):
    code, out, err = run(*TWO_BY_TWO, "--submission", "adamw,muon,adamw")  # the last one counts
    names = [name for name, _ in trials.calls]
    assert names == [
        f"{submission} {workload} {framework} 0 1"
        for submission in ("adamw", "muon")
        for workload in ("digits", "ag_news")
        for framework in ("jax", "pytorch")
    ]
    assert code == 0
    rows = [line.split() for line in out if line.startswith(("digits ", "ag_news "))]
    assert [row for row in rows if row[3] == "reached"] == [  # one table of all
        [workload, framework, submission, "reached", "4.00", "30", "accuracy", "0.9800"]
        for submission in ("adamw", "muon")
        for workload in ("digits", "ag_news")
        for framework in ("jax", "pytorch")
    ]
    assert "digits jax adamw study 0 trial 1 (1 of 8): point 1 drawn from its SEARCH_SPACE" in err
    assert not any(line.startswith("best of") for line in out)
    # The folders are those of single runs.
    folders = {path.parent for path in Path("runs").rglob(run_log.HYPERPARAMETERS)}
    single = run_log.trial_folder(Path("runs"), "mini-builtin", "muon", 0, "ag_news", "pytorch", 1)
    assert single in folders
    assert len(folders) == 8


def test_what_is_planned_goes_to_every_trial(trials, monkeypatch):
    seen = []
    monkeypatch.setattr(run_plan.study, "run", lambda base, *_: seen.append(base.planned) or [])
    words = ["run", *TWO_BY_TWO, "--studies", "2", "--trials", "3", "--trial-range", "2:3"]
    commands.main(words)
    assert len(seen) == 4
    assert all(planned == seen[0] for planned in seen)
    assert seen[0][3] == {
        "experiment": "mini-builtin",
        "submission": "adamw",
        "workload": "ag_news",
        "framework": "pytorch",
        "studies": 2,
        "first_study": 0,
        "first": 2,
        "last": 3,
    }


@pytest.mark.parametrize(
    ("ends", "code", "calls", "said"),
    [
        ({}, 0, 4, None),
        ({"adamw digits pytorch 0 1": {"status": "failed"}}, 1, 4, None),
        ({"adamw digits jax 0 1": UserError("no")}, 2, 4, "algoperf: no"),
        (
            {
                "adamw digits jax 0 1": UserError("no"),
                "adamw digits pytorch 0 1": {"status": "failed"},
            },
            2,
            4,
            "algoperf: no",
        ),
        ({"adamw digits pytorch 0 1": writing.UnwritableError("full")}, 74, 2, "algoperf: full"),
        (
            {"adamw ag_news jax 0 1": InterruptedRunError("there/trial_1")},
            75,
            3,
            "algoperf: stopped; there/trial_1 is saved, and the same command goes on with it; to "
            "look: algoperf status runs",
        ),
    ],
)
def test_the_exit_code_is_the_worst(run, trials, ends, code, calls, said):
    failed = {"error": {"cause": "KeyError", "traceback": "Traceback"}}
    trials.ends = {
        name: end if isinstance(end, Exception) else end | failed for name, end in ends.items()
    }
    got, _, err = run(*TWO_BY_TWO)
    assert (got, len(trials.calls)) == (code, calls)
    if said is not None:
        assert said in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--no-checkpoint",),
            "there is not saved (--no-checkpoint), and the same command starts it over",
        ),
        (("--overwrite",), "there is saved, and the same command without --overwrite goes on"),
    ],
)
def test_an_interruption_claims_no_more_than_is_so(run, trials, words, said):
    trials.ends = {1: InterruptedRunError("there")}
    code, _, err = run(*DIGITS, *words)
    assert code == 75
    assert err[-1].startswith(f"algoperf: stopped; {said}")
    options = {"checkpoints": False} if words[0] == "--no-checkpoint" else {"overwrite": True}
    with pytest.raises(KeyboardInterrupt, match=r"there is not saved|without overwrite"):
        algoperf.run("digits", "nadamw", framework="jax", **options)


@pytest.mark.parametrize(
    ("traceback", "end"),
    [("Traceback: here", "; the result.json of each has its error's traceback"), ("", "")],
)
def test_a_traceback_is_promised_only_where_there_is_one(run, trials, traceback, end):
    trials.ends = {1: {"status": "failed", "error": {"cause": "x", "traceback": traceback}}}
    code, out, err = run(*DIGITS)
    assert (code, out[-1]) == (1, f"runs are in runs/mini-builtin{end}")
    assert out[0].endswith("failed after at least 30 steps: x")
    assert "Traceback: here" not in err
    code, _, err = run(*DIGITS, "--debug")
    assert (code, "Traceback: here" in err) == (1, bool(traceback))


def test_runs_limited_in_steps_are_not_said_to_be_scored(run, trials):
    _, out, _ = run(*DIGITS, "--max-steps", 5)
    assert out[-1] == (
        "runs are in runs/mini-builtin; algoperf score runs ranks no runs that --max-steps limits"
    )


def test_json_is_all_of_standard_output(run, trials):
    code, out, err = run(*DIGITS, "--trials", 2, "--json", "--save-best", "best.py")
    results = json.loads("\n".join(out))
    assert (code, [result["trial"] for result in results]) == (0, [1, 2])
    assert sum("reached target accuracy" in line for line in err) == 2
    assert err[-1] == "best.py is nadamw.py with the DEFAULTS of study 0 trial 2"


def test_the_best_point_is_saved(run, trials):
    trials.ends = {3: {"status": "failed", "error": {"cause": "x", "traceback": ""}}}
    _, out, _ = run(*DIGITS, "--trials", 3, "--save-best", "best.py")
    assert "best.py is nadamw.py with the DEFAULTS of study 0 trial 2" in out
    assert '    "learning_rate": 0.02,\n' in Path("best.py").read_text()
    assert run(*DIGITS, "--save-best", "best.py")[0] == 2  # it is not overwritten
    trials.ends = {1: {"status": "diverged"}}
    _, out, _ = run(*DIGITS, "--save-best", "other.py")
    assert "other.py is not written: no trial has a result to choose by" in out
    assert not Path("other.py").exists()


def test_from_python(trials, capsys):
    result = algoperf.run(
        ["digits", "ag_news"], ["adamw", "muon"], framework=["jax", "pytorch"], trials=2
    )
    assert len(result.trials) == 16
    assert {trial.submission for trial in result} == {"adamw", "muon"}
    assert capsys.readouterr() == ("", "")
    algoperf.run("digits", "adamw", framework="jax", name="other", save_best="b.py", show=True)
    assert trials.calls[-1] == ("other digits jax 0 1", False)
    said = capsys.readouterr().err
    assert "digits jax other study 0 trial 1: reached" in said
    assert "b.py is adamw.py with the DEFAULTS of" in said
    with pytest.raises(UserError, match="unknown option 'threat'; did you mean threads"):
        algoperf.run("digits", "adamw", threat=1)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ((*TWO_BY_TWO, "--save-best", "b.py"), "--save-best is for one submission, workload and"),
        ((*DIGITS, "--submission", "adamw,muon", "--name", "x"), "--name names one submission"),
        ((*DIGITS, "--name", "a/b"), "--name 'a/b': expected letters"),
        ((*DIGITS, "--name", ".."), "--name '..': expected letters"),
        ((*DIGITS, "--threads", 4096), "--threads 4096: this process may use only"),
        ((*DIGITS, "--save-best", "no/b.py"), "--save-best no/b.py: there is no folder no"),
        ((*DIGITS, "--save-best", "there.py"), "--save-best there.py: exists and is not overwri"),
        ((*DIGITS, "--save-best", "best"), "--save-best best: expected a file that ends in .py"),
        ((*DIGITS, "--workload", "digist"), "unknown workload 'digist'; did you mean digits?"),
        ((*DIGITS, "--framework", "torch"), "unknown framework 'torch'; did you mean pytorch?"),
        ((*DIGITS, "--submission", ","), "submission names nothing; give at least one"),
        (("--workload", ",", *DIGITS[2:]), "workload names nothing; give at least one"),
        (("--submission", "a/same.py,b/same.py", *DIGITS[:2]), "submissions "),
        (
            ("--submission", "self.py", "--tuning-ruleset", "self", "--save-best", "b.py",
             *DIGITS[:2]),
            "--save-best b.py: under self-tuning a submission is given no point",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_anything_runs(run, trials, words, part):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "same.py").write_text("DEFAULTS = {}\ndef jax_optimizer(): ...\n")
    Path("self.py").write_text(
        "import jax\ndef init_optimizer_state(): ...\ndef update_params(): ...\n"
    )
    Path("there.py").touch()
    code, out, err = run(*words)
    assert (code, out, trials.calls) == (2, [], [])
    assert err[-1].startswith(f"algoperf: {part}")
    assert len(err) == 1


def test_a_file_with_a_comma_in_its_name(run, trials):
    Path("a,b.py").write_text("DEFAULTS = {}\ndef jax_optimizer(): ...\n")
    assert run("--workload", "digits", "--submission", "a,b.py", "--name", "ab")[0] == 0
    assert trials.calls == [("ab digits jax 0 1", False)]


def test_a_search_space_without_a_ruleset_is_told(run, trials):
    Path("space.json").write_text('[{"learning_rate": 1}]')
    said = "--search-space without --tuning-ruleset: each trial takes a point of it, not the DEFA"
    assert any(line.startswith(said) for line in run(*DIGITS, "--search-space", "space.json")[2])
    words = (*DIGITS, "--search-space", "space.json", "--tuning-ruleset", "external")
    assert not any(line.startswith(said) for line in run(*words)[2])
