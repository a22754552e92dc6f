"""Made run folders for the scoring tests."""

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
    from scoring import build_leaderboard, load_runs, make_pools

    def make(*paths):
        runs, findings = load_runs(*(paths or [tmp_path / "runs"]))
        pools, more = make_pools(runs)
        findings = findings + more
        built = {}
        for pool in pools:
            built[pool.name], more = build_leaderboard(pool)
            findings += more
        return built, [str(finding) for finding in findings]

    return make
