"""Made run folders for the scoring tests."""

import itertools
import json
from pathlib import Path

import pytest

POOL = {"scale": "mini", "data": "builtin", "precision": "float32", "tuning_ruleset": "none"}
ACCURACY = {"metric": "accuracy", "higher_is_better": True, "validation": 0.9, "test": None}


def write_trial(
    root: Path,
    values,
    *,
    submission="adamw",
    experiment="mini-builtin",
    study=0,
    workload="digits",
    framework="jax",
    trial=1,
    target=ACCURACY,
    budget_s=100.0,
    pool=POOL,
    fingerprint="f1",
    status="complete",
    flags=None,
    result=None,
) -> Path:
    """One trial folder; `values` are (time, step, metric) pairs; status None: killed."""
    folder = root / experiment / submission / f"study_{study}" / f"{workload}_{framework}"
    folder = folder / f"trial_{trial}"
    folder.mkdir(parents=True)
    lines = [f"accumulated_submission_time,global_step,validation/{target['metric']}"]
    lines += [",".join(map(str, row)) for row in values]
    (folder / "eval_measurements.csv").write_text("\n".join(lines) + "\n")
    facts = {"target": target, "budget_s": budget_s}
    told = facts | {"pool": pool, "data_fingerprint": fingerprint, "max_steps": None}
    (folder / "flags_0.json").write_text(json.dumps(told | (flags or {})))
    (folder / "hparams.json").write_text(json.dumps({"learning_rate": 0.1}))
    if status is not None:
        outcome = {"status": status, "scoreable": True} | facts | (result or {})
        (folder / "result.json").write_text(json.dumps(outcome))
    return folder


@pytest.fixture
def make_trial(tmp_path):
    """`make_trial(values, submission=..., ...)` writes a trial below tmp_path/runs."""

    def make(values, **facts) -> Path:
        return write_trial(tmp_path / "runs", values, **facts)

    return make


@pytest.fixture
def reach(make_trial):
    """A trial that misses at half of `time_s` and `step`, where it meets the target."""

    def make(time_s, step=None, **facts) -> Path:
        step = int(10 * time_s) if step is None else step
        rows = [(time_s / 2, step // 2, 0.5), (time_s, step, 0.9)]
        return make_trial(rows, **{"status": "reached", **facts})

    return make


@pytest.fixture
def miss(make_trial):
    """A trial that never meets the target."""

    def make(**facts) -> Path:
        return make_trial([(1.0, 10, 0.5), (2.0, 20, 0.6)], **facts)

    return make


@pytest.fixture
def boards(tmp_path):
    """`boards()` -> (leaderboards by pool name, all findings as text) of what was written."""
    from scoring.leaderboard import build_leaderboard
    from scoring.pools import make_pools
    from scoring.runs import read_runs

    def make(*paths):
        runs, findings = read_runs(*(paths or [tmp_path / "runs"]))
        pools, more = make_pools(runs)
        findings = findings + more
        built = {}
        for pool in pools:
            built[pool.name], more = build_leaderboard(pool)
            findings += more
        return built, [str(finding) for finding in findings]

    return make


@pytest.fixture
def analysis(boards):
    """`analysis(reference)` of the only pool that was written."""
    from scoring.analysis import analyse, summarise

    def make(reference=None):
        (board,) = boards()[0].values()
        return analyse(summarise(board, reference=reference, resamples=200), resamples=20)

    return make


@pytest.fixture
def analyses_of():
    """`analyses_of(path, ..., benchmark=None)` -> (an analysis of every pool, all findings)."""
    from scoring.analysis import analyse, summarise
    from scoring.leaderboard import build_leaderboards
    from scoring.runs import read_runs

    def make(*paths, benchmark=None):
        runs, findings = read_runs(*paths)
        scored, more = build_leaderboards(runs, benchmark=benchmark)
        findings += more
        analyses = []
        for board, more in scored:
            findings += more
            if board.rows:
                analyses.append(analyse(summarise(board, resamples=500), resamples=500))
        return analyses, findings

    return make


@pytest.fixture
def quick_slow_lost(tmp_path, reach, miss, analyses_of):
    """Two workloads, three studies: 'quick' and 'slow' reach both, 'lost' neither; analyses."""
    for study, workload in itertools.product(range(3), ("digits", "letters")):
        place = {"study": study, "workload": workload}
        reach(10.0 + study, submission="quick", **place)
        reach(9.0, submission="quick", trial=2, status="complete", budget_s=100.0, **place)
        reach(20.0 + study, 180, submission="slow", **place)
        miss(submission="lost", **place)
    return analyses_of(tmp_path / "runs")


@pytest.fixture
def page_of(tmp_path):
    """`page_of((analyses, findings), findings=None)` -> the path of the page written of them."""
    from scoring.page import write_page

    def make(made, findings=None):
        analyses, found = made
        told = found if findings is None else findings
        return write_page(analyses, told, "algoperf score runs --out out", tmp_path / "report.html")

    return make
