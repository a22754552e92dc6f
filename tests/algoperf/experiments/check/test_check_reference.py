"""The conformance suite of our own algorithms: each passes `algoperf check` in each framework."""

import pytest

import reference_algorithms
from algoperf.experiments.check import processes
from algoperf.submission import loading
from algoperf.workload import catalogue

UNITS = [
    (framework, name)
    for name in reference_algorithms.names()
    for framework in loading.inspect(reference_algorithms.path(name)).frameworks
]
FEW = ("adamw", "muon", "sam", "schedule_free_adamw")  # in JAX, where compiling takes the time


def marked(framework, name):
    exhaustive = framework == "jax" and name not in FEW
    return pytest.param(framework, name, marks=[pytest.mark.exhaustive] if exhaustive else [])


BY_NEED = {
    "search space": "no search space",
    "self-tuning": "it has a search space, for external tuning",
}


@pytest.fixture(scope="module")
def verdicts_on(request, tmp_path_factory):
    """`verdicts_on(name of a workload)[framework, name]`: one process for each framework."""
    kept = {}
    chosen = {
        (item.callspec.params["framework"], item.callspec.params["name"])
        for item in request.session.items
        if item.module is request.module
    }

    def check(workload_name):
        folder = tmp_path_factory.mktemp(workload_name)
        prepared = [processes.prepare(catalogue.find(workload_name), folder)]
        found = {}
        for framework in sorted({framework for framework, _ in chosen}):
            names = [name for each, name in UNITS if each == framework and (each, name) in chosen]
            said = []
            requests = [
                processes.request(reference_algorithms.path(name), framework, prepared)
                for name in names
            ]
            processes.run(requests, folder, said.append)
            each = len(said) // len(names)
            found |= {
                (framework, name): said[each * k : each * (k + 1)] for k, name in enumerate(names)
            }
        return found

    def once(workload_name):
        if workload_name not in kept:
            kept[workload_name] = check(workload_name)
        return kept[workload_name]

    return once


def assert_sound(found):
    failed = {verdict.check: verdict.reason for verdict in found if verdict.status == "failed"}
    assert not failed
    skipped = {verdict.check: verdict.reason for verdict in found if verdict.status == "skipped"}
    assert skipped.items() <= BY_NEED.items()


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "name"), [marked(*unit) for unit in UNITS])
def test_on_digits(verdicts_on, framework, name):
    assert_sound(verdicts_on("digits")[framework, name])


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize(("framework", "name"), UNITS)
def test_on_news(verdicts_on, framework, name):
    assert_sound(verdicts_on("ag_news")[framework, name])
