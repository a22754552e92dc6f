"""The public logs of the AlgoPerf benchmark, where they are at hand: every expected number.

`expected/` was made by another implementation; its README explains the columns. What a made folder
in that layout gives is tested everywhere.
"""

import csv
import dataclasses
import itertools
import json
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest

from scoring.analysis import sensitivity
from scoring.analysis.leaderboard import build_leaderboard
from scoring.analysis.oddities import find_oddities
from scoring.analysis.statistics import OVER, bootstrap
from scoring.benchmarks.benchmark import apply_benchmark, find_benchmark
from scoring.benchmarks.pools import make_pools
from scoring.reading.runs import read_runs
from scoring.rules import rules as scoring_rules
from scoring.rules.rules import AS_PUBLISHED, BY_THE_RULES
from scoring.rules.time_to_target import ended_early, is_readable, time_to_target

LOGS = Path(__file__).parents[3] / "shared" / "algoperf_logs"
SETS = ("v06_external", "v05_self_tuning")
RULES = pytest.mark.parametrize("rules", [BY_THE_RULES, AS_PUBLISHED], ids=lambda rules: rules.name)

needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason="needs the public logs")


@dataclasses.dataclass(frozen=True)
class PublicLogs:
    name: str
    findings: list
    pool: object
    benchmark: object

    def board(self, rules, **options):
        board, _ = build_leaderboard(self.pool, rules, self.benchmark, **options)
        return board

    def table(self, name):
        with (LOGS / "expected" / self.name / f"{name}.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def statistics(self):
        return json.loads((LOGS / "expected" / self.name / "stats_bootstrap.json").read_text())


def runs_in(name, folder):
    """The trials of a set of public logs, and the findings, from its archive."""
    with tarfile.open(LOGS / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return read_runs(folder)


@pytest.fixture(scope="module", params=SETS)
def logs(request, tmp_path_factory):
    runs, findings = runs_in(request.param, tmp_path_factory.mktemp(request.param))
    benchmark = find_benchmark(LOGS / f"workload_targets_{request.param[:3]}.json")
    runs, notes = apply_benchmark(runs, benchmark, None)
    (pool,), _ = make_pools(runs)
    return PublicLogs(request.param, findings + notes, pool, benchmark)


def number(text):
    return math.nan if text == "" else float(text)


def same(found, expected):
    return pytest.approx(expected, rel=1e-12, abs=1e-300, nan_ok=True) == found


def test_a_folder_in_their_layout(tmp_path):
    trial = tmp_path / "logs/external_tuning/baseline/study_0/wmt_jax/trial_1"
    trial.mkdir(parents=True)
    (trial / "eval_measurements.csv").write_text(
        "accumulated_eval_time,accumulated_submission_time,global_step,score,test/bleu,validation/bleu\n"
        "9.7,26.0,1,26.0,0.0,0.0\n15.1,866.0,2412,866.0,9.0,10.7\n"
    )
    (trial / "flags_0.json").write_text('{"workload": "wmt", "framework": "jax"}')
    (trial / "meta_data_0.json").write_text('{"workload.validation_target_value": 30.8}')
    (run,), findings = read_runs(tmp_path)
    assert findings == []
    assert (run.submission, run.experiment) == ("baseline", "external_tuning")
    assert (run.workload, run.framework, run.target, run.status) == ("wmt", "jax", None, None)
    assert run.rows["validation/bleu"].tolist() == [0.0, 10.7]
    (pool,), findings = make_pools([run])
    assert "records no settings" in findings[0].message
    board, findings = build_leaderboard(pool)
    assert (board.targets, len(findings)) == ({}, 1)
    assert "wmt has no target" in findings[0].message


@needs_logs
def test_every_trial(logs):
    expected = {
        (row["submission"], row["workload"], row["study"], row["trial"]): row
        for row in logs.table("trial_times")
    }
    found = {
        (run.submission, run.workload, f"study_{run.study}", f"trial_{run.trial}"): run
        for run in logs.pool.runs
    }
    assert set(found) == set(expected)
    for key, row in expected.items():
        run = found[key]
        assert run.framework == row["framework"]
        assert run.budget_s == pytest.approx(float(row["max_runtime_with_ruleset_factor"]), abs=0.5)
        hit = time_to_target(run.rows, run.target)
        assert same(hit.time_s, number(row["time_to_target"]))
        assert str(hit.evaluation if hit.reached else "") == row["hit_eval_index"]
        assert same(hit.step if hit.reached else math.nan, number(row["hit_global_step"]))
        status = "no_eval_measurements"
        if is_readable(run):
            values = run.rows[run.target.column]
            best = np.nanmax(values) if run.target.higher_is_better else np.nanmin(values)
            assert same(best, number(row["best_val_metric"]))
            last = run.rows["accumulated_submission_time"][-1], run.rows["global_step"][-1]
            assert same(last[0], number(row["last_score_time"]))
            assert same(last[1], number(row["last_global_step"]))
            status = "hit" if hit.reached else "ended_early" if ended_early(run) else "miss"
        assert status == row["status"], key
        assert str(len(run.rows.get("global_step", ()))) == row["n_evals"]


@needs_logs
@RULES
def test_every_study(logs, rules):
    column = {"by-the-rules": "earliest_time", "as-published": "index_tie_min"}[rules.name]
    board = logs.board(rules)
    found = {
        (row.entry.label, workload, f"study_{result.study}"): result
        for row in board.rows
        for workload, cell in row.cells.items()
        for result in cell.studies
    }
    table = logs.table("study_times")
    for row in table:
        result = found.pop((row["submission"], row["workload"], row["study"]))
        assert same(result.time_s, number(row[column]))
    assert all(result.absent for result in found.values())  # studies that were never run


@needs_logs
@RULES
def test_every_median_ratio_and_credit(logs, rules):
    board, name = logs.board(rules), rules.name.replace("-", "_")
    cells = {row.entry.label: row.cells for row in board.rows}
    for row in logs.table(f"median_times_{name}"):
        own = cells[row.pop("submission")]
        assert {w: cell.median_time_s for w, cell in own.items()} == pytest.approx(
            {w: number(text) for w, text in row.items()}, rel=1e-12, nan_ok=True
        )
    for row in logs.table(f"ratios_{name}"):
        own = cells[row.pop("submission")]
        assert {w: own[w].ratio for w in row} == pytest.approx(
            {w: number(text) for w, text in row.items()}, rel=1e-12
        )
    credit = logs.table("credit")
    assert len(credit) == len(board.rows) * 8
    for row in credit:
        assert cells[row["submission"]][row["base_workload"]].credit == row["status"]
    held_out = {row["held_out"]: row["base_workload"] for row in credit if row["held_out"]}
    assert board.benchmark.variant_of == held_out


@needs_logs
def test_every_score(logs):
    expected = {row.pop("submission"): row for row in logs.table("scores_by_mode")}
    published = AS_PUBLISHED
    modes = {
        "published": (published, {}),
        "as_published": (published, {}),
        "earliest_time": (dataclasses.replace(published, earliest="time"), {}),
        "missing_study_inf": (dataclasses.replace(published, absent_is_missed=True), {}),
        "ref_after_variants": (dataclasses.replace(published, one_reference=True), {}),
        "exact_integral": (dataclasses.replace(published, exact=True), {}),
        "by_the_rules": (BY_THE_RULES, {}),
        "no_held_out": (published, {"held_out": False}),
    }
    for mode, (rules, options) in modes.items():
        for row in logs.board(rules, **options).rows:
            if mode in expected[row.entry.label]:
                tolerance = 5e-5 if mode == "published" else 1e-12
                value = float(expected[row.entry.label][mode])
                assert row.score == pytest.approx(value, abs=tolerance), mode
    if "no_held_out" in next(iter(expected.values())):
        for row in logs.board(published).rows:
            assert same(row.base_score, float(expected[row.entry.label]["no_held_out"]))
    # A published leaderboard's order is ours.
    order = sorted(expected, key=lambda label: -float(expected[label]["published"]))
    assert logs.board(published).labels == order


@needs_logs
@RULES
@pytest.mark.parametrize("over", OVER)
def test_bootstrap(logs, rules, over):
    board, expected = logs.board(rules), logs.statistics[over]
    one = bootstrap(board.times_SWN, board.layout, rules, over=over, method="percentile")
    error = 0.01 if over == "studies" else 0.09  # of the expected ends: 1,000 resamples
    kind = "exact_ci95" if rules.exact else "grid_ci95"
    for place, label in enumerate(board.labels):
        of = expected[label]
        np.testing.assert_allclose(one.score_interval[place], of[kind], atol=error)
        assert one.p_first[place] == pytest.approx(of["p_rank1"], abs=0.05)
        assert one.ranks[:, place].mean() == pytest.approx(of["mean_rank"], abs=0.1)
        np.testing.assert_allclose(one.rank_interval[place], of["rank_ci95"], atol=1)
        assert one.scores_RS[:, place].std() == pytest.approx(of["exact_sd"], abs=0.01)
        for other, rival in enumerate(board.labels):
            share = expected["_p_row_beats_col"][label][rival]
            assert one.p_beats[place, other] == pytest.approx(share, abs=0.05)


@needs_logs
@RULES
def test_leave_one_out(logs, rules):
    board, expected = logs.board(rules), logs.statistics
    kind = "score_exact" if rules.exact else "score_grid"
    for name, scores in sensitivity.leave_one_workload_out(board).items():
        of = expected["leave_one_workload_out"][name]
        found = dict(zip(board.labels, scores, strict=True))
        assert found == pytest.approx({s: of[s][kind] for s in found}, abs=1e-12)
        ranks = dict(zip(board.labels, scoring_rules.ranks(scores), strict=True))
        assert ranks == {label: of[label]["rank"] for label in ranks}
    table = sensitivity.leave_one_submission_out(board)
    for place, label in enumerate(board.labels):
        of = expected["leave_one_submission_out"][label]
        found = {s: v for s, v in zip(board.labels, table[place], strict=True) if s != label}
        assert found == pytest.approx({s: of[s][kind] for s in found}, abs=1e-12)
        assert np.isnan(table[place, place])
    assert {row.entry.label: row.rank for row in board.rows} == expected["full_rank"]


@needs_logs
def test_every_three_of_five_studies(logs):
    if "three_study_subsets_grid" not in logs.statistics:
        pytest.skip("has three studies")
    board = logs.board(AS_PUBLISHED)
    subsets = logs.statistics["three_study_subsets_grid"]
    assert len(subsets) == len(list(itertools.combinations(range(5), 3)))
    for names, expected in subsets.items():
        studies = [int(name) for name in names.split(",")]
        times_SWN = board.times_SWN[..., studies]
        scores = scoring_rules.scores(times_SWN, board.layout, AS_PUBLISHED)
        found = dict(zip(board.labels, scores, strict=True))
        assert found == pytest.approx(expected, abs=1e-12)


@needs_logs
def test_findings_name_what_is_odd(logs):
    messages = [finding.message for finding in logs.findings]
    board = logs.board(BY_THE_RULES)
    odd = [finding.message for finding in find_oddities(row.entry for row in board.rows)]
    assert not any(finding.damage for finding in find_oddities(row.entry for row in board.rows))
    missing = {"v06_external": 4, "v05_self_tuning": 20}[logs.name]
    assert messages == ["is missing: no evaluation"] * missing
    if logs.name == "v06_external":
        assert "baseline on imagenet_vit: 12 trials ended early" in "\n".join(odd)
        assert "shampoo on ogbg: 7 trials ended early without the target, at 32 %" in "\n".join(odd)
        assert "shampoo on fastmri: step times differ 6.5 times" in "\n".join(odd)
        ties = [message for message in odd if "at one evaluation with different times" in message]
        assert sum(message.count("study_") for message in ties) == 4
    else:
        _, findings = build_leaderboard(logs.pool, BY_THE_RULES, logs.benchmark)
        told = "adamg has no trial of librispeech_conformer_layernorm in study_4"
        assert told in [finding.message for finding in findings]


@needs_logs
def test_built_in_targets_are_those_of_the_published_files(logs):
    version = {"v06_external": "0.6", "v05_self_tuning": "0.5"}[logs.name]
    built_in = find_benchmark(f"algoperf-{version}")
    for field in ("base_workloads", "variant_of", "studies", "self_tuning_factor"):
        assert getattr(built_in, field) == getattr(logs.benchmark, field)
    assert built_in.workloads == logs.benchmark.workloads


def test_log_files_beside_trial_folders_are_one_remark(tmp_path):
    workload = tmp_path / "logs/self_tuning/muon/study_0/wmt_jax"
    trial = workload / "trial_1"
    trial.mkdir(parents=True)
    (trial / "eval_measurements.csv").write_text(
        "accumulated_submission_time,global_step,validation/bleu\n26.0,1,0.0\n"
    )
    for path in (
        workload / "wmt_jax_09-12-2025.log",
        workload.parent / "b.err",
        workload / "x.txt",
    ):
        path.write_text("step 1")
    (workload.parents[2] / "all.log").write_text("step 1")
    runs, findings = read_runs(tmp_path)
    assert len(runs) == 1
    assert [(finding.message, finding.damage) for finding in findings] == [
        ("left out: not a folder named trial_<j>", True),  # x.txt is no log.
        ("3 log files beside the folders of trials: ignored", False),
    ]


@needs_logs
@pytest.mark.parametrize("targets", ["algoperf-2026", LOGS / "workload_targets_2026.json"])
def test_the_board_of_2026(tmp_path, targets):
    name = "a100_self_tuning"
    runs, _ = runs_in(name, tmp_path)
    benchmark = find_benchmark(targets)
    runs, _ = apply_benchmark(runs, benchmark, None)
    (pool,), _ = make_pools(runs)
    board, _ = build_leaderboard(pool, AS_PUBLISHED, benchmark)
    logs = PublicLogs(name, [], pool, benchmark)
    expected = {row["submission"]: float(row["score"]) for row in logs.table("scores_as_published")}
    found = {row.entry.label: row.score for row in board.rows}
    assert found == pytest.approx(expected, abs=1e-12)
    medians = logs.table("median_times_as_published")
    assert len(medians) == 9
    cells = {row.entry.label: row.cells for row in board.rows}
    for row in medians:
        own = cells[row.pop("submission")]
        assert {name: cell.median_time_s for name, cell in own.items()} == pytest.approx(
            {name: number(text) for name, text in row.items()}, rel=1e-12
        )
    # Budgets: self-tuning has 1.5 times those of the file, also where it says version 0.6.
    assert {run.budget_s for run in pool.runs if run.workload == "fastmri"} == {1.5 * 2_745}
    assert benchmark.variant_of == {}
    assert len(benchmark.base_workloads) == 9
