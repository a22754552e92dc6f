"""Damaged logs: every kind is told, nothing else moves, and no byte of a folder can raise."""

import json
import os
import random
import shutil
import tarfile
from pathlib import Path

import pytest

from algoperf import errors
from scoring import report
from scoring.analysis.analysis import analyse, summarise
from scoring.output.export import to_json
from scoring.output.tables import finding_lines

LOGS = Path(__file__).parents[4] / "shared" / "algoperf_logs"


def results(folder, **options):
    """Each submission's study results by workload, and the findings."""
    boards, findings = report.make_boards([folder], report.Options(**options))
    cells = {
        (row.entry.label, workload): cell.studies
        for board in boards
        for row in board.rows
        for workload, cell in row.cells.items()
    }
    return cells, findings


def _truncate(trial):
    path = trial / "eval_measurements.csv"
    path.write_text(path.read_text()[:-7])


def _drop_metric(trial):
    path = trial / "eval_measurements.csv"
    header, *rows = path.read_text().splitlines()
    column = next(i for i, name in enumerate(header.split(",")) if name.startswith("validation/"))
    cut = [
        ",".join(f for i, f in enumerate(row.split(",")) if i != column) for row in (header, *rows)
    ]
    path.write_text("\n".join(cut) + "\n")


def _nan_metric(trial):
    path = trial / "eval_measurements.csv"
    header, *rows = path.read_text().splitlines()
    column = next(i for i, name in enumerate(header.split(",")) if name.startswith("validation/"))
    made = [
        ",".join("nan" if i == column else f for i, f in enumerate(row.split(","))) for row in rows
    ]
    path.write_text("\n".join([header, *made]) + "\n")


# What is done to a trial of study 1, and what is said of it; that study alone may change.
DAMAGE = {
    "missing": (lambda t: (t / "eval_measurements.csv").unlink(), "is missing: no evaluation"),
    "empty": (lambda t: (t / "eval_measurements.csv").write_text(""), "is empty: no evaluation"),
    "header only": (
        lambda t: (t / "eval_measurements.csv").write_text("global_step,validation/loss\n"),
        "has no complete row: no evaluation",
    ),
    "torn": (_truncate, "ends in a torn line, which is left out"),
    "rubbish": (
        lambda t: (t / "eval_measurements.csv").write_bytes(bytes(range(256)) * 9),
        "no evaluation",
    ),
    "lacks a column": (_drop_metric, "has no column validation/"),
    "NaN metric": (_nan_metric, "has no finite value of validation/"),
    "torn JSON": (lambda t: (t / "hparams.json").write_text('{"a": 1'), "is not JSON"),
}
STRAYS = {
    "stray file": ("study_1/notes.txt", "left out: not a folder named <workload>_<framework>"),
    "stray folder": ("study_1/old/", "left out: not a folder named <workload>_<framework>"),
    "old trial": ("study_1/{workload}/trial_1_old/", "left out: not a folder named trial_<j>"),
    "stray study": ("study_one/", "left out: not a folder named study_<k>"),
    "stray beside submissions": ("../rubbish/", "holds no study_<k> folder: left out"),
    "file beside submissions": ("../README.txt", "holds no study_<k> folder: left out"),
}


def make_stray(submission, name, workload):
    path = submission / name.format(workload=workload)
    if name.endswith("/"):
        path.mkdir(parents=True)
        (path / "eval_measurements.csv").write_text("global_step\n1\n")
    else:
        path.write_text("x")


@pytest.fixture
def made(tmp_path, reach, miss):
    """Two submissions on two workloads over three studies of two trials, without settings."""
    for place, submission in enumerate("ab"):
        for workload in ("digits", "lm"):
            for study in range(3):
                reach(
                    10.0 + place + study,
                    submission=submission,
                    workload=workload,
                    study=study,
                    pool={},
                )
                miss(submission=submission, workload=workload, study=study, trial=2, pool={})
    return tmp_path / "runs"


def check(folder, workload, submission, **options):
    """Every kind of damage to the submission's study 1 of `workload`, one after the other."""
    clean, before = results(folder, **options)
    keep = folder.with_name("clean")
    shutil.copytree(folder, keep)
    for name, (damage, message) in DAMAGE.items():
        trial = next(folder.rglob(f"{submission}/study_1/{workload}/trial_1"))
        damage(trial)
        found, findings = results(folder, **options)
        told = [finding for finding in findings if finding not in before]
        assert any(message in f.message and f.path.is_relative_to(trial) for f in told), name
        assert all(f.damage for f in told if message in f.message), name
        changed = {key for key in clean if [*found[key]] != [*clean[key]]}
        own = {key for key in clean if key[0] == submission and workload.startswith(key[1])}
        assert changed <= own, name
        for key in own:
            same = [a == b for a, b in zip(found[key], clean[key], strict=True)]
            assert [s for i, s in enumerate(same) if clean[key][i].study != 1] == [True] * (
                len(same) - 1
            )
        shutil.rmtree(folder)
        shutil.copytree(keep, folder)
    for name, (stray, message) in STRAYS.items():
        make_stray(next(folder.rglob(f"{submission}/study_1")).parent, stray, workload)
        found, findings = results(folder, **options)
        told = [finding for finding in findings if finding not in before]
        assert any(message in f.message and f.damage for f in told), name
        assert found == clean, name
        shutil.rmtree(folder)
        shutil.copytree(keep, folder)
    # A whole study of a workload is gone.
    shutil.rmtree(next(folder.rglob(f"{submission}/study_1/{workload}")))
    found, findings = results(folder, **options)
    assert any(f.message.endswith("in study_1") and f.damage for f in findings)
    assert {key for key in clean if found[key] != clean[key]} <= own
    shutil.rmtree(folder)
    shutil.copytree(keep, folder)
    # Another framework's runs of one workload: whatever they say, they are nobody's.
    source = next(folder.rglob(f"{submission}/study_1/{workload}"))
    framework = {"jax": "pytorch", "pytorch": "jax"}[workload.rsplit("_", 1)[1]]
    other = source.with_name(f"{workload.rsplit('_', 1)[0]}_{framework}")
    shutil.copytree(source, other)
    for path in other.rglob("eval_measurements.csv"):
        path.write_text(path.read_text().replace(",1", ",0.001"))
    found, findings = results(folder, **options)
    assert any(f.message.endswith(f"left out: {other.name}") and f.damage for f in findings)
    assert found == clean


def test_every_kind_of_damage_is_told_and_the_rest_is_unchanged(made):
    check(made, "digits_jax", "a")


@pytest.mark.skipif(not LOGS.is_dir(), reason="needs the public logs")
def test_damage_to_public_logs(tmp_path):
    with tarfile.open(LOGS / "v06_external.tar.xz") as archive:
        archive.extractall(tmp_path / "logs", filter="data")
    keep = tmp_path / "logs" / "previous_leaderboards/algoperf_v06/logs"
    for folder in keep.glob("external_tuning/*/study_*/*"):
        if folder.name.rsplit("_", 1)[0] not in ("ogbg", "fastmri", "wmt"):
            shutil.rmtree(folder)  # for speed
    check(keep, "fastmri_pytorch", "shampoo", targets="algoperf-0.6")


def mutate(generator, files, folder):
    """One to three random changes of bytes (or a file gone, cut, or doubled) in one file."""
    path = generator.choice(files)
    data = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 3)):
        kind = generator.random()
        place = generator.randrange(len(data) + 1)
        if kind < 0.6 and data:
            data[place % len(data)] = generator.choice(
                (generator.randrange(256), *b'\0\n,"-.9e{}[]')
            )
        elif kind < 0.75:
            data[place:place] = generator.choice(
                (
                    b"\n",
                    b",",
                    b"nan",
                    b"-inf",
                    b"1e999",
                    b"\xff",
                    b'"',
                    b"null",
                    b"true",
                    b"[]",
                    b"-",
                )
            )
        elif kind < 0.9:
            del data[place : place + generator.randint(1, 40)]
        else:
            del data[place:]
    return path, bytes(data)


def score_everything(folder, statistics):
    """The command less its files, with the statistics or without; raises a user's mistake alone."""
    try:
        boards, findings = report.make_boards([folder], report.Options())
    except errors.UserError:
        return
    json.dumps(to_json([], findings), allow_nan=False)
    finding_lines(findings)
    if statistics:
        summaries = [summarise(board, resamples=2) for board in boards if board.rows]
        analyses = [analyse(summary, resamples=2) for summary in summaries]
        json.dumps(to_json(analyses, findings), allow_nan=False, default=str)


@pytest.mark.slow
def test_ten_thousand_mutations(tmp_path, reach, miss, monkeypatch):
    monkeypatch.setattr("scoring.analysis.speedup.RESAMPLES", 2)
    monkeypatch.setattr("scoring.analysis.analysis.BAND_RESAMPLES", 2)
    monkeypatch.setattr("scoring.analysis.analysis.BAND_CHUNK", 2)
    for submission, time_s in [("a", 10.0), ("b", 14.0)]:
        for study in (0, 1):
            reach(time_s + study, submission=submission, study=study)
    miss(submission="b", study=0, workload="lm", trial=2)
    folder = tmp_path / "runs"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    clean = {path: path.read_bytes() for path in files}
    generator = random.Random(20261122)
    count = int(os.environ.get("ALGOPERF_MUTATIONS", "10000"))
    for number in range(count):
        path, data = mutate(generator, files, folder)
        path.write_bytes(data)
        try:
            score_everything(folder, statistics=number % 4 == 0)
        except Exception as error:
            raise AssertionError(f"mutation {number} of {path.name}: {data!r}") from error
        path.write_bytes(clean[path])
