"""docs/variants/competition.tar.xz: the runs are whole, and score what docs/competition.md says."""

import itertools
import json
import math
import statistics
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.run_folder import archive
from scoring.reading.runs import read_runs

DOCS = Path(__file__).parents[3] / "docs"
BASES = {"digits": 0.97, "ag_news": 0.92, "xsum": 0.75}  # with their targets
SUBMISSIONS = ("muon", "nadamw", "prodigy")
STUDIES = 2


@pytest.fixture(scope="module")
def suite():
    return json.loads((DOCS / "variants" / "suite.json").read_text())["variants"]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("competition")
    archive.unpack(DOCS / "variants" / "competition.tar.xz", folder)
    return folder


@pytest.fixture(scope="module")
def runs(unpacked):
    found, problems = read_runs(unpacked)
    assert not problems
    return {(run.workload, run.submission, run.study): run for run in found}


def test_every_run_is_there_with_the_suite_s_targets(runs, suite):
    assert sorted(entry["base"] for entry in suite.values()) == sorted(BASES)
    assert set(runs) == set(itertools.product([*BASES, *suite], SUBMISSIONS, range(STUDIES)))
    drawn = {
        name: entry["targets"]["mini"]["builtin"]["validation"] for name, entry in suite.items()
    }
    for (workload, _, _), run in runs.items():
        assert run.target.validation == (BASES | drawn)[workload]


def times(runs, workload):
    """Each submission's time to the target, the median of its studies, by what the rows say."""
    found = {}
    for submission in SUBMISSIONS:
        of_study = []
        for study in range(STUDIES):
            run = runs[workload, submission, study]
            values = run.rows[f"validation/{run.target.metric}"]
            reached = run.rows["accumulated_submission_time"][values >= run.target.validation]
            of_study.append(min(reached, default=math.inf))
        found[submission] = statistics.median(of_study)
    return found


def scores(runs, suite, with_held_out):
    """The rules of docs/scoring.md written a second time, for one variant of each base."""
    total = dict.fromkeys(SUBMISSIONS, 0.0)
    for base in BASES:
        taken, ok = times(runs, base), dict.fromkeys(SUBMISSIONS, True)
        if with_held_out:
            (variant,) = (name for name, entry in suite.items() if entry["base"] == base)
            on_variant = times(runs, variant)
            fastest = min(on_variant[name] for name in SUBMISSIONS if taken[name] < math.inf)
            ok = {name: on_variant[name] < math.inf for name in SUBMISSIONS}
            ok = {name: ok[name] and on_variant[name] <= 4 * fastest for name in SUBMISSIONS}
        credited = {name: taken[name] for name in SUBMISSIONS if ok[name]}
        fastest = min(credited.values(), default=math.inf)
        for name, time in credited.items():
            if time < math.inf:
                total[name] += max(0.0, 4 - time / fastest) / 3 / len(BASES)
    return total


@pytest.mark.parametrize(
    "options", [(), ("--suite", str(DOCS / "variants" / "suite.json")), ("--no-held-out",)]
)
def test_the_scores_are_those_of_the_rules_and_of_the_page(unpacked, runs, suite, options, capsys):
    with_held_out = "--no-held-out" not in options
    words = ["score", str(unpacked), "--rules", "by-the-rules", "--json", "--strict"]
    words += ["--resamples", "100", *options]
    assert commands.main(words) == 0
    (pool,) = json.loads(capsys.readouterr().out)["pools"]
    given = {entry["submission"]: entry["score"] for entry in pool["submissions"]}
    assert given == pytest.approx(scores(runs, suite, with_held_out), abs=1e-12)
    assert {name: f"{score:.4f}" for name, score in given.items()} == {
        row[0]: row[1 if with_held_out else 3] for row in the_page_s_rows()
    }


def the_page_s_rows():
    """Cells of the table of scores: submission, score, interval, score without held-out, ..."""
    _, _, table = (DOCS / "competition.md").read_text().partition("| submission | score |")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
