"""From draws to a suite, with runs whose curves are made up."""

import csv
import dataclasses
import json
import math

import pytest

from algoperf.cli import commands
from algoperf.cli.variants_command import run as run_command
from algoperf.data import validation_seed
from algoperf.errors import UserError
from algoperf.experiments.held_out import sample
from algoperf.machine.supervision import InterruptedRunError
from algoperf.run_folder import run_log
from algoperf.study.executors import local
from algoperf.study.executors.local import Local
from algoperf.workload import catalogue, suite

BASE_BEST, OTHER_BEST = 1.0, 3.0  # factors of the learning rate
REQUEST = sample.Request(7, ["digits"], 1)


def write_run(job, out, status="complete", slope=0.1, final=0.98, loss=0.1):
    folder = job.folder(out)
    folder.mkdir(parents=True)
    with (folder / "eval_measurements.csv").open("w", newline="") as file:
        names = ("global_step", "validation/accuracy", "validation/loss")
        writer = csv.writer(file)
        writer.writerow(names)
        for step in (1, 60, 450, 600):
            writer.writerow((step, min(final, 0.1 + slope * step), loss if step > 1 else 2.3))
    error = {"cause": "ValueError: no", "traceback": ""} if status == "failed" else None
    (folder / "result.json").write_text(json.dumps({"status": status, "error": error}))


@pytest.fixture
def runs(monkeypatch):
    """Runs instead of real ones; the first draw has the base's best factor, the second another but
    does not train, the third is as wanted; `started` are the jobs, `change` what a run's arguments
    get.
    """
    started, change = [], {}

    def run(todo, out, workers, note, threads, standard_input):
        for job in todo:
            assert standard_input == validation_seed.as_input(job.validation_seed)
            if job.has_ended(out):
                continue
            started.append(job)
            attempt = int(job.workload.rsplit("_", 1)[1]) if "_s7_" in job.workload else None
            best = OTHER_BEST if attempt in (1, 2) else BASE_BEST
            shape = {"slope": 0.01 if job.factor == best else 0.001}
            if attempt == 1:
                shape["loss"] = 2.0
            write_run(job, out, **{**shape, **change.get(job.workload, {})})
        return 0

    monkeypatch.setattr(local, "run", run)
    return started, change


def sampler(folder, request=REQUEST, curves=None):
    return sample.Sampler(request, folder, Local(), lambda text: None, curves)


def test_a_suite_on_secret_rows_says_so_and_takes_no_other_curves(runs, tmp_path):
    secret = validation_seed.derive("a text for tests, known to all")
    asked = dataclasses.replace(REQUEST, validation_seed=secret)
    document = sampler(tmp_path, asked, tmp_path / "curves.json").suite()
    assert document["settings"] == {
        **REQUEST.settings,
        "validation_commitment": secret.commitment,
    }
    entries = json.loads((tmp_path / "curves.json").read_text())["curves"]
    assert {entry["validation_commitment"] for entry in entries} == {secret.commitment}
    assert secret.secret not in str(document) + str(entries)
    (started, _) = runs
    assert {job.validation_seed for job in started} == {secret}


def test_a_suite_holds_the_accepted_and_says_why_the_others_are_not(runs, tmp_path):
    document = sampler(tmp_path).suite()
    assert list(document["variants"]) == ["digits_s7_2"]
    entry = document["variants"]["digits_s7_2"]
    # all ten runs of the best factor reach 0.98 by step 450 of 600
    assert entry["targets"]["mini"]["builtin"]["validation"] == 0.98
    assert "learning rate x 3: 9 of 10 runs" in entry["targets"]["mini"]["builtin"]["provenance"]
    # the mean of 0.1 + 0.01 * step, at most 0.98, at steps 1, 60, 450 and 600
    assert entry["levels"]["3"] == [pytest.approx((0.11 + 0.7 + 0.98 + 0.98) / 4, abs=1e-4)] * 2
    reasons = {each["name"]: each["reason"] for each in document["rejected"]}
    assert reasons["digits_s7_0"] == (
        "not different: in the first seed no learning rate beats the base's best (x 1)"
    )
    assert reasons["digits_s7_1"] == "not trainable: 0 of 2 seeds learn"
    run_log.write_json(tmp_path / "suite.json", document)
    found = catalogue.find("digits_s7_2", str(tmp_path / "suite.json"))
    assert found.scales["mini"].targets["builtin"].validation == 0.98
    assert [line.split()[:2] for line in sample.table(document)] == [
        ["accepted", "digits_s7_2:"],
        ["rejected", "digits_s7_0:"],
        ["rejected", "digits_s7_1:"],
    ]


def test_the_same_again_runs_nothing_and_is_the_same_byte_for_byte(runs, tmp_path):
    started, _ = runs
    run_log.write_json(tmp_path / "first.json", sampler(tmp_path / "runs").suite())
    # the base's grid, one seed of the first draw's, those of two draws, and the target's runs, of
    # which two are of the grid
    assert len(started) == 12 + 6 + 2 * 12 + 8
    run_log.write_json(tmp_path / "second.json", sampler(tmp_path / "runs").suite())
    assert len(started) == 12 + 6 + 2 * 12 + 8
    first, second = ((tmp_path / name).read_bytes() for name in ("first.json", "second.json"))
    assert first == second
    assert str(tmp_path) not in first.decode()


def test_curves_that_were_kept_are_not_run_again(runs, tmp_path):
    started, change = runs
    change["digits_s7_1"] = {"status": "diverged", "loss": math.nan}
    kept = tmp_path / "curves.json"
    first = sampler(tmp_path / "runs", curves=kept).suite()
    count, book = len(started), kept.read_bytes()
    assert sampler(tmp_path / "another machine", curves=kept).suite() == first
    assert (len(started), kept.read_bytes()) == (count, book)
    assert first["rejected"][1]["levels"]["3"] == [None]
    # The same names of other changes: what was measured is not theirs.
    kept.write_text(book.decode().replace('"dropout": 0.1', '"dropout": 0.3'))
    sampler(tmp_path / "a third", curves=kept).suite()
    again = {job.workload for job in started[count:]}
    assert again == {name for name in again if "dropout" in str(first_changes(first, name))}
    assert again


def first_changes(document, name):
    entries = [*document["variants"].items(), *((e["name"], e) for e in document["rejected"])]
    return dict(entries)[name]["changes"]


def test_curves_are_kept_of_what_ended_before_a_signal(runs, tmp_path, monkeypatch):
    real = local.run

    def interrupted(todo, out, workers, note, threads, standard_input):
        real(todo[:3], out, workers, note, threads, standard_input)
        raise InterruptedRunError(str(out))

    monkeypatch.setattr(local, "run", interrupted)
    with pytest.raises(InterruptedRunError):
        sampler(tmp_path / "runs", curves=tmp_path / "curves.json").suite()
    assert len(json.loads((tmp_path / "curves.json").read_text())["curves"]) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"format": 2, "curves": []}', "format 2, expected 1"),
        ('{"format": 1, "curves": [{"workload": "digits"}]}', "KeyError: 'steps_evaluated'"),
    ],
)
def test_a_file_that_holds_no_curves(runs, tmp_path, text, said):
    (tmp_path / "curves.json").write_text(text)
    with pytest.raises(UserError, match="holds no curves") as raised:
        sampler(tmp_path / "runs", curves=tmp_path / "curves.json")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_target_must_beat_the_baseline(runs, tmp_path):
    _, change = runs
    change["digits_s7_2"] = {"final": 0.968}
    with pytest.raises(UserError, match=r"digits: .* draws gave 0 of 1 variants"):
        sampler(tmp_path).suite()


def test_a_run_that_failed_ends_the_sampling(runs, tmp_path):
    _, change = runs
    change["digits_s7_1"] = {"status": "failed"}
    with pytest.raises(UserError, match=r"a screening run failed .ValueError: no"):
        sampler(tmp_path).suite()


def test_a_run_that_diverges_does_not_train(runs, tmp_path):
    _, change = runs
    change["digits_s7_2"] = {"status": "diverged"}
    with pytest.raises(UserError, match="draws gave 0 of 1 variants"):
        sampler(tmp_path).suite()


def test_candidates_can_be_run_by_name(runs, tmp_path):
    sampler(tmp_path).suite()
    found = suite.read(tmp_path / "candidates-7.json")
    assert found.variants["digits_s7_0"][1].changes == {"dropout": 0.1}
    started, _ = runs
    job = next(job for job in started if job.workload == "digits_s7_0")
    assert job.command(tmp_path)[-2:] == ["--suite", str(tmp_path / "candidates-7.json")] or (
        job.factor != 1
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--workloads", "digits_tanh"), "digits_tanh is a variant itself"),
        (("--workloads", "digts"), "did you mean digits"),
        (("--out", "none/suite.json"), "there is no folder none"),
        (("--curves", "none/curves.json"), "--curves none/curves.json: there is no folder none"),
    ],
)
def test_mistakes_are_told_before_anything_runs(runs, parser, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    given = ["variants", "sample", "--seed", "7", "--per-workload", "1", *words]
    with pytest.raises(UserError, match=said):
        run_command(parser.parse_args(given), print)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["3..1", "0..2", "a", "1...3"])
def test_a_range_of_axes_that_is_none(text, capsys):
    with pytest.raises(SystemExit) as left:
        commands.main(["variants", "sample", "--seed", "7", "--per-workload", "1", "--axes", text])
    assert left.value.code == 2
    assert "is not a number of axes like 2 or 1..3" in capsys.readouterr().err


def test_the_baseline_is_ours_whatever_lies_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nadamw").mkdir()
    (tmp_path / "nadamw" / "submission.py").write_text("DEFAULTS = {}\ndef jax_optimizer(): ...\n")
    own = sampler(tmp_path)
    job = own._job(catalogue.find("digits"), "digits", "jax", 0, 1.0, None)
    words = job.command(tmp_path)
    path = words[words.index("--submission") + 1]
    assert path.endswith("reference_algorithms/nadamw.py")
