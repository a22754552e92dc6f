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
    from scoring.analysis.leaderboard import build_leaderboard
    from scoring.benchmarks.pools import make_pools
    from scoring.reading.runs import read_runs

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
    from scoring.analysis.analysis import analyse, summarise

    def make(reference=None):
        (board,) = boards()[0].values()
        return analyse(summarise(board, reference=reference, resamples=200), resamples=20)

    return make


@pytest.fixture
def analyses_of():
    """`analyses_of(path, ..., benchmark=None)` -> (an analysis of every pool, all findings)."""
    from scoring.analysis.analysis import analyse, summarise
    from scoring.analysis.leaderboard import build_leaderboards
    from scoring.reading.runs import read_runs

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
    from scoring.output.page import write_page

    def make(made, findings=None):
        analyses, found = made
        told = found if findings is None else findings
        return write_page(analyses, told, "algoperf score runs --out out", tmp_path / "report.html")

    return make


@pytest.fixture
def competition(reach, miss, make_trial):
    """Three submissions on digits (accuracy) and lm (loss, lower is better), two studies.

    digits            study 0             study 1             median
      a               10 (trial 1; 12)    14 (trial 2; 16)    12
      b               24                  24                  24       ratio 24 / 12 = 2
      c               12                  (not run)           inf
    lm
      a               60                  (over the budget)   inf
      b               30                  50                  40       ratio 1
      c               40                  60                  50       ratio 50 / 40 = 1.25

    Scores, mean of max(0, 4 - r) / 3:  a (1 + 0) / 2 = 1/2;  b (2/3 + 1) / 2 = 5/6;
    c (0 + 2.75/3) / 2 = 11/24.
    """
    for study, trial, time_s in [(0, 1, 10.0), (0, 2, 12.0), (1, 1, 16.0), (1, 2, 14.0)]:
        reach(time_s, submission="a", study=study, trial=trial)
    for study in (0, 1):
        reach(24.0, submission="b", study=study)
        miss(submission="b", study=study, trial=2)
    reach(12.0, submission="c")
    miss(submission="c", trial=2)

    def lm(time_s, submission, study, budget_s=100.0):
        make_trial(
            [(time_s / 2, 5, 0.9), (time_s, 7, 0.5)],
            submission=submission,
            study=study,
            workload="lm",
            target={"metric": "loss", "higher_is_better": False, "validation": 0.5},
            budget_s=budget_s,
        )

    lm(60.0, "a", 0)
    lm(100.5, "a", 1)
    lm(30.0, "b", 0)
    lm(50.0, "b", 1)
    lm(40.0, "c", 0)
    lm(60.0, "c", 1)


HELD_OUT = {  # by variant: its base and what it changes
    "digits_tanh": ("digits", {"activation": "tanh"}),
    "digits_wide": ("digits", {"width": 2.0, "activation": "gelu"}),
    "ag_news_post_ln": ("ag_news", {"norm_place": "post"}),
}


@pytest.fixture
def held_out(reach, miss):
    """Three submissions on three base workloads and three held-out variants, two studies.

    Median seconds to the target (the studies: a second less and one more):

            digits  digits_tanh  digits_wide  ag_news  ag_news_post_ln  xsum
      a       10        12           20          40         missed        30
      b       20        22           25          60           90          30
      c     missed      30           30          80          120          45

    Steps are 10 a second (c: 5), twice that on digits_wide. Ratios to the fastest, and scores, the
    mean of max(0, 4 - r) / 3:

            digits          ag_news         xsum           score
      a     1               variant missed  1              (1 + 0 + 1) / 3 = 2/3
      b     20 / 10 = 2     1               1              (2/3 + 1 + 1) / 3 = 8/9
      c     missed          80 / 60 = 4/3   45 / 30 = 3/2  (0 + 8/9 + 5/6) / 3 = 31/54
    and by the base workloads alone, where a's 40 s are the fastest on ag_news:
      a  (1 + 1 + 1) / 3 = 1   b  (2/3 + 5/6 + 1) / 3 = 5/6   c  (0 + 2/3 + 5/6) / 3 = 1/2
    """
    workloads = ("digits", "digits_tanh", "digits_wide", "ag_news", "ag_news_post_ln", "xsum")
    medians_s = {"a": (10, 12, 20, 40, 0, 30), "b": (20, 22, 25, 60, 90, 30)}
    for submission, times_s in (medians_s | {"c": (0, 30, 30, 80, 120, 45)}).items():
        for workload, time_s in zip(workloads, times_s, strict=True):
            base, changes = HELD_OUT.get(workload, (None, {}))
            told = {"base_workload": base, "changes": changes} if base else {}
            for study, later_s in enumerate((-1, 1)):
                facts = {"submission": submission, "workload": workload, "study": study}
                facts |= {"flags": told, "budget_s": 400.0}
                if time_s:
                    a_second = (5 if submission == "c" else 10) * (1 + (workload == "digits_wide"))
                    reach(float(time_s + later_s), a_second * (time_s + later_s), **facts)
                else:
                    miss(**facts)
