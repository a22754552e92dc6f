"""The commands, and the mistakes that one can make: one line, exit code 2, no traceback."""

import csv
import dataclasses
import gzip
import importlib.util
import json
from pathlib import Path

import pytest

import algoperf
from algoperf.cli import commands
from algoperf.experiments.check import processes, verdicts

ALGORITHM = """
DEFAULTS = {"learning_rate": 0.003}

def jax_optimizer(hyperparameters):
    import optax
    return optax.adam(hyperparameters.learning_rate)

def torch_optimizer(params, hyperparameters):
    import torch
    return torch.optim.Adam(params.tensors(), lr=hyperparameters.learning_rate)
"""
JAX_ONLY = ALGORITHM.partition("def torch_optimizer")[0]
FULL_FORM = """
import jax

def init_optimizer_state(model_params):
    return 0

def update_params(optimizer_state, current_param_container, model_state):
    return optimizer_state, current_param_container, model_state
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mistake(here, capsys):
    """`mistake(*words)` runs a command that must be refused; the one line that says why."""

    def run(*words):
        try:
            code = commands.main([str(word) for word in words])
        except SystemExit as ended:  # argparse's
            code = ended.code
        captured = capsys.readouterr()
        said = ("submission", "digits jax study 0 trial 1: in ", "  its DEFAULTS: ")
        lines = [line for line in captured.err.splitlines() if not line.startswith(said)]
        assert code == 2, captured.err
        assert captured.out == ""
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("algoperf: ")
        assert not list(here.glob("runs/*")), "a mistake leaves no run folder"
        return lines[0]

    return run


@pytest.fixture
def refused(mistake, here):
    """`refused(source, *words)` runs digits with a submission file of that source."""

    def run(source, *words):
        (here / "mine.py").write_text(source)
        options = ("--framework", "jax", "--max-steps", 1, *words)
        return mistake("run", "--workload", "digits", "--submission", "mine.py", *options)

    return run


def run_words(**changes):
    options = {"workload": "digits", "submission": "adamw", **changes}
    return [
        "run",
        *(str(w) for key, value in options.items() for w in (f"--{key.replace('_', '-')}", value)),
    ]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"workload": "digit"}, ("unknown workload 'digit'", "did you mean digits?", "ag_news")),
        (
            {"workload": "xyz"},
            ("unknown workload 'xyz' (one of: ag_news, ", "lm, mlm, ogbg, samsum, wmt, xsum)"),
        ),
        ({"scale": "minni"}, ("unknown scale of digits 'minni'", "did you mean mini?")),
        ({"framework": "torch"}, ("unknown framework 'torch'", "did you mean pytorch?", "jax")),
        (
            {"workload": "ag_news", "data": "bulitin"},
            ("unknown data 'bulitin'", "did you mean builtin?", "FOLDER"),
        ),
        (
            {"workload": "ag_news", "data": "nowhere/news"},
            ("no such folder", "builtin, hub, FOLDER"),
        ),
        ({"workload": "ag_news", "data": "a_file"}, ("unknown data 'a_file'", "not a folder")),
        ({"data": "."}, ("digits reads no folder", "builtin")),
        ({"data": "hub"}, ("unknown data for digits 'hub'", "builtin")),
        ({"experiment": "a/b"}, ("--experiment 'a/b'", "letters")),
        ({"experiment": "../b"}, ("--experiment '../b'",)),
        ({"experiment": ".b"}, ("--experiment '.b'",)),
        ({"trial_range": "nonsense"}, ("--trial-range 'nonsense'", "FIRST:LAST within 1:1")),
        ({"trial_range": "0:1"}, ("--trial-range '0:1'",)),
        ({"trial_range": "2:1", "trials": 3}, ("--trial-range '2:1'", "1:3")),
        ({"trial_range": "1:4", "trials": 3}, ("--trial-range '1:4'", "1:3")),
        (
            {"trials": 0},
            ("--trials: '0' is not a whole number of at least 1", "algoperf run --help"),
        ),
        ({"seed": -1}, ("--seed: '-1'",)),
        ({"seed": "x"}, ("--seed: 'x' is not a whole number of at least 0",)),
        ({"tuning_ruleset": "extern"}, ("invalid choice: 'extern'",)),
        ({"no_such": 1}, ("unrecognized arguments: --no-such 1",)),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_was_asked(mistake, here, changes, parts):
    (here / "a_file").touch()
    line = mistake(*run_words(**changes))
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    "command", [[], ["runn"], ["run"], ["workloads", "digit"], ["score", "no"]]
)
def test_other_commands_refuse_in_one_line_as_well(mistake, command):
    assert mistake(*command)


def test_no_near_match_is_made_up(mistake):
    assert "did you mean" not in mistake(*run_words(workload="xyz"))


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("folder/mine.py", ("folder/mine.py: no such file",)),
        ("notes.txt", ("notes.txt: not a Python file", ".py")),
        ("gone.txt", ("gone.txt: no such file",)),
        ("adam", ("unknown submission 'adam'", "did you mean adamw", "nesterov")),
        ("nobody.py", ("unknown submission 'nobody'", "one of: adafactor")),
        ("empty", ("empty: a folder without a submission.py",)),
        ("beside", ("unknown submission 'beside'", "beside.py")),
    ],
)
def test_submission_that_is_not_there(mistake, here, given, parts):
    (here / "notes.txt").touch()
    (here / "empty").mkdir()
    (here / "beside.py").write_text(ALGORITHM)
    line = mistake(*run_words(submission=given))
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("DEFAULTS = {}\n\ndef jax_optimizer(:\n", ("mine.py:3: ", "invalid syntax")),
        ("x = 1\0", ("mine.py:1: ", "null byte")),
        ("DEFAULTS = {}\n", ("missing function jax_optimizer or torch_optimizer",)),
        ("def update_params(): ...\n", ("missing function init_optimizer_state",)),
        ("def init_optimizer_state(): ...\n", ("missing function update_params",)),
        (JAX_ONLY.replace("DEFAULTS", "DEFAULT"), ("missing DEFAULTS",)),
        (
            ALGORITHM.replace("def jax_optimizer", "def jaxx"),
            ("does not serve jax", "serves: pytorch"),
        ),
        (FULL_FORM.replace("jax", "torch"), ("does not serve jax", "serves: pytorch")),
    ],
)
def test_submission_that_is_refused_unread(refused, source, parts):
    line = refused(source)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (ALGORITHM.replace('{"learning_rate": 0.003}', "[3]"), ("DEFAULTS is not a dict",)),
        (
            ALGORITHM.replace("def jax_optimizer(", "def jax_optimizer(model, "),
            ("jax_optimizer wants argument 'model'", "params, hyperparameters, info"),
        ),
        (
            FULL_FORM.replace("(model_params)", "(params, *, rng)"),
            ("init_optimizer_state wants argument 'params'", "model_params"),
        ),
        (
            FULL_FORM.replace("(optimizer_state, cur", "(optimizer_state, /, cur"),
            ("update_params wants argument 'optimizer_state'",),
        ),
        ("jax_optimizer = 3\nDEFAULTS = {}\n", ("jax_optimizer is not a function",)),
        (
            ALGORITHM + "\nimport no_such_module\n",
            ("mine.py:12: ModuleNotFoundError", "no_such_module"),
        ),
        (ALGORITHM + "\nprint(undefined)\n", ("mine.py:12: NameError", "undefined")),
        (
            ALGORITHM.replace("0.003", '0.003, "momentum": 0.9'),
            ("nobody reads hyperparameter 'momentum'", "grad_clip"),
        ),
        (
            JAX_ONLY.replace("return optax", "return lambda: optax"),
            ("returned function, not an optax",),
        ),
    ],
)
def test_submission_that_is_refused_when_it_runs(refused, source, parts):
    line = refused(source)
    for part in parts:
        assert part in line


def test_framework_that_is_not_installed(mistake, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    line = mistake(*run_words(framework="pytorch"))
    assert "framework 'pytorch' is not installed (missing: torch)" in line
    assert "pip install 'algoperf[torch]'" in line


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{", ("space.json:1:2: not JSON",)),
        ("", ("space.json is empty",)),
        ("[]", ("space.json is empty",)),
        ('{"lr": {"min": 2, "max": 1, "scaling": "linear"}}', ("lr: min 2 is greater than max 1",)),
        ('{"lr": {"min": 0, "max": 1, "scaling": "log"}}', ("lr: min 0 with log scaling",)),
        ('{"lr": {"min": 0, "max": 1, "scale": "log"}}', ("lr: unknown key 'scale'", "scaling")),
        ('{"lr": {"min": 0, "max": 1, "scaling": "ln"}}', ("lr: unknown scaling 'ln'",)),
        ('{"lr": {"feasible_points": []}}', ("lr: feasible_points is an empty list",)),
        ('[{"lr": 1}, {"beta": 1}]', ("point 2 and point 1 differ",)),
        (None, ("space.json: Is a directory",)),
    ],
)
def test_search_space(mistake, here, text, parts):
    path = here / "space.json"
    if text is None:
        path.mkdir()
    else:
        path.write_text(text)
    line = mistake(*run_words(tuning_ruleset="external", search_space="space.json"))
    for part in parts:
        assert part in line


def test_search_space_that_is_not_there(mistake, refused):
    line = mistake(*run_words(tuning_ruleset="external", search_space="no.json"))
    assert "no.json: No such file" in line
    assert "has no search space; give --search-space" in refused(
        ALGORITHM, "--tuning-ruleset", "external"
    )


@pytest.mark.parametrize("ruleset", [(), ("--tuning-ruleset", "external")])
def test_more_trials_than_points(mistake, here, ruleset):
    (here / "two.json").write_text('[{"learning_rate": 1}, {"learning_rate": 2}]')
    line = mistake(*run_words(search_space="two.json", trials=3), *ruleset)
    assert "--trials 3: the search space lists only 2 points" in line


def test_self_tuning_takes_no_search_space(mistake, here):
    (here / "two.json").write_text('[{"learning_rate": 1}]')
    line = mistake(*run_words(search_space="two.json", tuning_ruleset="self"))
    assert "--search-space with --tuning-ruleset self" in line


def news(folder: Path, rows=40, **files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        lines = [f'"{1 + row % 4}","title {row}","text {row}"\n' for row in range(rows)]
        (folder / f"{split}.csv").write_text(files.get(split, "".join(lines)))
    return folder


GOOD = '"1","a","b"\n' * 20


@pytest.mark.parametrize(
    ("files", "parts"),
    [
        ({"train": GOOD + '"2","only two"\n'}, ("train.csv:21: 2 fields, expected 3",)),
        ({"train": GOOD + "\n" + GOOD}, ("train.csv:21: 0 fields, expected 3",)),
        ({"train": GOOD + '"7","a","b"\n'}, ("train.csv:21: class '7', expected 1 to 4",)),
        ({"train": GOOD + '"0","a","b"\n'}, ("train.csv:21: class '0', expected 1 to 4",)),
        ({"train": GOOD + '"²","a","b"\n'}, ("train.csv:21: class '²', expected 1 to 4",)),
        ({"test": '"class","title","text"\n'}, ("test.csv:1: class 'class'",)),
        ({"test": GOOD + '"1"," ",""\n'}, ("test.csv:21: no text",)),
        ({"train": ""}, ("train: the split is empty",)),
        ({"test": ""}, ("test: the split is empty",)),
        ({"train": '"1","a","b"\n' * 9}, ("9 training rows leave none for validation",)),
    ],
)
def test_data_folder(mistake, here, files, parts):
    news(here / "news", **files)
    line = mistake(*run_words(workload="ag_news", data="news", framework="jax"))
    for part in parts:
        assert part in line


def test_batch_larger_than_the_split(mistake, here):
    news(here / "news")
    words = run_words(workload="ag_news", data="news", framework="jax", batch_size=37)
    assert "batch size 37 is larger than the training split of 36 rows" in mistake(*words)


def test_out_that_is_no_folder(mistake, here):
    (here / "file").touch()
    line = mistake(*run_words(out="file", framework="jax", max_steps=1))
    assert "file/mini-builtin/adamw/study_0/digits_jax/trial_1 is not writable" in line
    assert "--out" in line


def test_debug_shows_where_a_mistake_was_found(here, capsys):
    assert commands.main(["run", "--debug", *run_words(workload="digit")[1:]]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert "in find" in shown
    assert shown.splitlines()[-1].startswith("algoperf: unknown workload")


def test_debug_shows_the_traceback_of_the_trials_process(here, capsys):
    (here / "mine.py").write_text(ALGORITHM + "\nprint(undefined)\n")
    words = run_words(submission="mine.py", framework="jax")
    assert commands.main([*words, "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "NameError" in shown
    assert 'mine.py", line 12' in shown


def test_workloads(capsys):
    assert commands.main(["workloads"]) == 0
    shown = capsys.readouterr().out
    assert "digits: " in shown
    assert "target on builtin: accuracy" in shown
    assert "set by" not in shown
    assert commands.main(["workloads", "digits"]) == 0
    shown = capsys.readouterr().out
    assert "set by" in shown
    assert "ag_news" not in shown


@pytest.mark.parametrize("name", [(), ("digits",)])
def test_workloads_as_json(capsys, name):
    assert commands.main(["workloads", *name, "--json"]) == 0
    described = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(described) == (set(name) or {"digits", "ag_news"} | set(described))
    assert described["digits"]["target_metric"] == "accuracy"
    assert described["digits"]["scales"]["mini"]["targets"]["builtin"]["validation"] > 0.9


def test_submissions(capsys):
    assert commands.main(["submissions"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()][:2] == ["adafactor", "adamw"]
    assert commands.main(["submissions", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} >= {"adamw", "nadamw", "momentum", "nesterov"}
    for row in rows:
        assert row["frameworks"] == ["jax", "pytorch"]
        assert Path(row["path"]).is_file()
        assert row["summary"]


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        commands.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"algoperf {algoperf.__version__}\n"


def test_run_on_a_gzipped_folder_and_what_it_prints(here, capsys):
    for path in list(news(here / "elsewhere" / "news").iterdir()):
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    words = run_words(workload="ag_news", data="elsewhere/news", framework="jax", max_steps=2)
    words += ["--batch-size", "4"]
    assert commands.main([*words, "--json"]) == 0
    shown = capsys.readouterr()
    assert "submission: reference algorithm adamw (" in shown.err
    trial = here / "runs/mini-folder/adamw/study_0/ag_news_jax/trial_1"
    written = json.loads((trial / "result.json").read_text())
    assert json.loads(shown.out) == [written]
    assert written["status"] == "complete"
    assert written["scoreable"] is False
    with (trial / "eval_measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["global_step"] for row in rows] == ["1", "2"]
    assert [row["validation/num_examples"] for row in rows] == ["4.0", "4.0"]
    assert [row["test/num_examples"] for row in rows] == ["", "40.0"]

    assert commands.main(words) == 0  # again, now as text, and without work
    shown = capsys.readouterr()
    assert "done before (complete), skipped" in shown.err
    assert "ag_news jax adamw study 0 trial 1: complete" in shown.out
    assert "algoperf score runs" in shown.out

    news(here / "other", rows=44)  # the done trial is not taken for one on these rows
    assert commands.main([*words[:4], *words[4:], "--data", "other"]) == 2
    assert "holds another configuration (data_source: " in capsys.readouterr().err


def test_json_has_no_nan(here, capsys):
    (here / "nan.py").write_text(ALGORITHM.replace("0.003", "float('nan')"))
    words = run_words(submission="nan.py", framework="jax", max_steps=3)
    assert commands.main([*words, "--json"]) == 0

    def refuse(constant):
        raise AssertionError(constant)

    (result,) = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert result["status"] == "diverged"
    assert result["final"]["validation/loss"] is None


def test_verdicts_stand_in_columns_whatever_the_workload_s_name(monkeypatch, capsys):
    verdict = verdicts.Verdict("jax", "digits", "moves", "ok", "")
    longer = dataclasses.replace(verdict, workload="librispeech_conformer")

    def check(submission, framework, names, seed, show):
        show(verdict)
        show(longer)
        return [verdict, longer]

    monkeypatch.setattr(processes, "check", check)
    assert commands.main(["check", "nadamw", "--workloads", "digits,librispeech_conformer"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "jax      digits                moves           ok"
    assert lines[1] == "jax      librispeech_conformer moves           ok"
