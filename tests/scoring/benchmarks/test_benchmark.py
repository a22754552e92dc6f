"""Files of targets: AlgoPerf's form, ours, and what is wrong with them."""

import json

import pytest

from algoperf import errors
from scoring.benchmarks.benchmark import apply_benchmark, find_benchmark
from scoring.reading.runs import read_runs
from scoring.reading.trials import Target

THEIRS = {
    "benchmark_version": "0.5",
    "base_workloads": ["imagenet_resnet", "wmt"],
    "held_out_workloads": ["wmt_glu_tanh"],
    "workloads": {
        "imagenet_resnet": {
            "target_metric_name": "accuracy",
            "validation_target_value": 0.77,
            "step_hint": 9,
        },
        "wmt": {"target_metric_name": "bleu", "validation_target_value": 30.8},
        "wmt_glu_tanh": {"target_metric_name": "bleu", "validation_target_value": 29.5},
        "wmt_post_ln": {"target_metric_name": "bleu", "validation_target_value": 30.0},
    },
}
OURS = {
    "benchmark": "spring",
    "studies": 2,
    "self_tuning_factor": 2,
    "workloads": {
        "digits": {"metric": "accuracy", "validation": 0.9, "budget_s": 60},
        "lm": {"metric": "loss", "validation": 0.5},
        "lm_wide": {"metric": "loss", "validation": 0.6, "variant_of": "lm"},
        "depth": {"metric": "error", "higher_is_better": False, "validation": 0.1},
    },
}


@pytest.fixture
def targets(tmp_path):
    def write(value):
        path = tmp_path / "targets.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write


def changed(whole, path, value):
    """A copy of `whole` with the entry at the dotted `path` replaced (None: removed)."""
    copy = json.loads(json.dumps(whole))
    *folders, last = path.split(".")
    of = copy
    for name in folders:
        of = of[name]
    if value is None:
        del of[last]
    else:
        of[last] = value
    return copy


def test_algoperf_form(targets):
    found = find_benchmark(targets(THEIRS))
    assert found.name == "AlgoPerf 0.5"
    assert found.base_workloads == ("imagenet_resnet", "wmt")
    assert found.variant_of == {"wmt_glu_tanh": "wmt"}
    assert found.scored == ("imagenet_resnet", "wmt", "wmt_glu_tanh")
    assert found.workloads["wmt_glu_tanh"].target == Target("bleu", True, 29.5)
    # Budgets of version 0.5, the variant's from its base; 5 studies; self-tuning x 3.
    assert [found.workloads[name].budget_s for name in found.scored] == [63_008, 48_151, 48_151]
    assert (found.studies, found.self_tuning_factor) == (5, 3.0)


def test_version_06_with_a_suffix_and_an_unknown_version(targets):
    newer = find_benchmark(targets(THEIRS | {"benchmark_version": "0.6-8wl"}))
    assert newer.workloads["wmt"].budget_s == 43_336
    assert (newer.studies, newer.self_tuning_factor) == (3, 1.5)
    unknown = find_benchmark(targets(THEIRS | {"benchmark_version": "7"}))
    assert unknown.workloads["wmt"].budget_s is None
    assert unknown.studies is None


def test_own_form(targets):
    found = find_benchmark(targets(OURS))
    assert (found.name, found.studies, found.self_tuning_factor) == ("spring", 2, 2.0)
    assert found.base_workloads == ("digits", "lm", "depth")
    assert found.variant_of == {"lm_wide": "lm"}
    assert found.workloads["digits"].target == Target("accuracy", True, 0.9)
    assert found.workloads["lm"].target == Target("loss", False, 0.5)
    assert found.workloads["depth"].target == Target("error", False, 0.1)
    assert found.workloads["lm"].budget_s is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "is not JSON"),
        ([], "has no object 'workloads'"),
        ({"workloads": []}, "has no object 'workloads'"),
        (changed(THEIRS, "base_workloads", "wmt"), "base_workloads is not a list of names"),
        (changed(THEIRS, "workloads.wmt", None), "wmt is listed without target_metric_name"),
        (changed(THEIRS, "workloads.wmt.validation_target_value", "x"), "wmt is listed without"),
        (
            changed(THEIRS, "held_out_workloads", ["imagenet_resnet"]),
            "held-out imagenet_resnet is a variant of none of imagenet_resnet, wmt",
        ),
        (changed(OURS, "workloads.lm", 3), "lm must be an object with metric"),
        (changed(OURS, "workloads.lm.metrics", "x"), "lm must be an object with metric"),
        (changed(OURS, "workloads.lm.validation", None), "lm needs validation, a number"),
        (changed(OURS, "workloads.lm.validation", True), "lm needs validation, a number"),
        (changed(OURS, "workloads.lm.higher_is_better", 1), "higher_is_better, true or false"),
        (changed(OURS, "workloads.digits.budget_s", -1), "digits has budget_s -1, not seconds"),
        (
            changed(OURS, "workloads.lm_wide.variant_of", "gpt"),
            "lm_wide is variant_of 'gpt', which is not a base workload; one of: digits, lm, depth",
        ),
        (changed(OURS, "studies", 0), "studies is 0, not a whole number"),
        (changed(OURS, "self_tuning_factor", "3"), "self_tuning_factor is '3', not a factor"),
    ],
)
def test_bad_files_are_told_in_one_line(targets, value, message):
    path = targets(value)
    with pytest.raises(errors.UserError) as raised:
        find_benchmark(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_names_the_built_in_ones(tmp_path):
    with pytest.raises(errors.UserError, match=r"algoperf-0\.5, algoperf-0\.6"):
        find_benchmark(tmp_path / "nothing")


def test_runs_get_targets_and_budgets_and_others_are_left_out(tmp_path, targets, miss):
    for workload in ("digits", "lm_wide", "stray"):
        miss(workload=workload)
    runs, _ = read_runs(tmp_path / "runs")
    kept, findings = apply_benchmark(runs, find_benchmark(targets(OURS)), None)
    known = {run.workload: (run.target, run.budget_s, run.base_workload) for run in kept}
    assert known == {
        "digits": (Target("accuracy", True, 0.9), 60, None),
        "lm_wide": (Target("loss", False, 0.6), None, "lm"),
    }
    assert [finding.message for finding in findings] == ["stray is not scored in spring: left out"]


@pytest.mark.parametrize(
    ("facts", "given", "budget_s"),
    [
        ({}, None, 60),
        ({}, "self", 120),
        ({"experiment": "self_tuning"}, None, 120),
        ({"experiment": "self_tuning"}, "external", 60),
        ({"experiment": "external_tuning"}, None, 60),
        ({"pool": {"tuning_ruleset": "self"}}, None, 120),
        ({"pool": {"tuning_ruleset": "external"}, "experiment": "self_tuning"}, None, 60),
    ],
)
def test_the_ruleset_sets_the_budget_factor(tmp_path, targets, miss, facts, given, budget_s):
    miss(**facts)
    runs, _ = read_runs(tmp_path / "runs")
    (run,), _ = apply_benchmark(runs, find_benchmark(targets(OURS)), given)
    assert run.budget_s == budget_s


def test_budgets_in_a_file_of_theirs_go_before_those_of_its_version(targets):
    stated = changed(THEIRS, "workloads.wmt.max_allowed_runtime_sec", 60)
    benchmark = find_benchmark(targets(stated))
    assert benchmark.workloads["wmt"].budget_s == 60
    assert benchmark.workloads["wmt_glu_tanh"].budget_s == 60
    assert benchmark.workloads["imagenet_resnet"].budget_s == 63_008
    wrong = changed(THEIRS, "workloads.wmt.max_allowed_runtime_sec", -1)
    with pytest.raises(errors.UserError, match="wmt has max_allowed_runtime_sec -1, not seconds"):
        find_benchmark(targets(wrong))


def test_the_benchmark_of_2026_has_nine_workloads_and_those_before_eight():
    counts = {version: find_benchmark(f"algoperf-{version}") for version in ("0.5", "0.6", "2026")}
    assert [len(each.base_workloads) for each in counts.values()] == [8, 8, 9]
    new = counts["2026"]
    lm = new.workloads["finewebedu_lm"]
    assert (lm.target, lm.budget_s) == (Target("ppl", False, 22.2995), 31_967)
    assert (new.studies, new.self_tuning_factor, new.trials) == (3, 1.5, 5)
    assert "finewebedu_lm" not in counts["0.6"].workloads
