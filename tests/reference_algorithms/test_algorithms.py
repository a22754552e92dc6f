"""What every reference algorithm has to have, and how they are found."""

import importlib
import subprocess
import sys

import pytest
import update_agreement as runs

import reference_algorithms
from algoperf import errors, spec
from algoperf.submission import loading, search_space

NAMES = reference_algorithms.names()
OPTIMIZER_FORMS = [name for name in NAMES if name != "sam"]
SELF_TUNING = {"nadamw_self_tuning", "schedule_free_self_tuning"}
CONSTANT_RATE = {"schedule_free_adamw", "schedule_free_self_tuning"}
LIBRARIES = {
    "pytorch_optimizer": {"ademamix", "adopt", "lion", "mars", "prodigy", "signum", "soap"},
    "schedulefree": {"schedule_free_adamw", "schedule_free_self_tuning"},
}
CONSUMED_BY_THE_LIBRARY = {"batch_size", "grad_clip", "label_smoothing", "dropout_rate"}
INFO = spec.TrainingInfo(
    step_hint=100, loss_type=spec.LossType.SOFTMAX_CROSS_ENTROPY, budget_s=60.0
)
WITHOUT_THE_OTHER = """
import importlib, inspect, sys
import reference_algorithms
from algoperf import spec
names = reference_algorithms.names()
modules = [importlib.import_module(f"reference_algorithms.{name}") for name in names]
assert not {"jax", "torch", "pytorch_optimizer", "schedulefree"} & set(sys.modules), "at import"
info = spec.TrainingInfo(step_hint=9, loss_type=spec.LossType.CTC_LOSS, budget_s=1.0)
made = 0
for module in modules:
    function = getattr(module, f"{sys.argv[1]}_optimizer", None)
    if function is None:
        continue
    tensor = None
    if sys.argv[1] == "torch":
        import torch
        tensor = torch.nn.Parameter(torch.zeros(2))
    parameter = spec.Parameter("w", spec.ParameterType.WEIGHT, (2,), False, tensor)
    given = {
        "params": spec.Parameters([parameter]),
        "hyperparameters": spec.make_hyperparameters(module.DEFAULTS),
        "info": info,
    }
    taken = set(given) & set(inspect.signature(function).parameters)
    function(**{name: given[name] for name in taken})
    made += 1
print(made, *(name in sys.modules for name in sys.argv[1:]))
"""


def load(name):
    return importlib.import_module(f"reference_algorithms.{name}")


def make(name, framework, point=None):
    """Call the algorithm as the loader does, for one hidden matrix and one vector."""
    tensors = [None, None]
    if framework == "torch":
        import torch

        tensors = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2))]
    weight, bias = spec.ParameterType.WEIGHT, spec.ParameterType.BIAS
    params = [
        spec.Parameter("a/kernel", weight, (2, 3), False, tensors[0]),
        spec.Parameter("a/bias", bias, (2,), False, tensors[1]),
    ]
    function = loading.function_of(getattr(load(name), f"{framework}_optimizer"))
    point = point or spec.make_hyperparameters(load(name).DEFAULTS)
    return function(params=spec.Parameters(params), hyperparameters=point, info=INFO)


def test_names():
    assert [
        *("adafactor", "adamw", "ademamix", "adopt", "cautious_adamw", "diloco", "lamb", "lion"),
        *("mars", "momentum", "muon", "nadamw", "nadamw_self_tuning", "nesterov", "normuon"),
        *("prodigy", "psgd_kron", "sam", "schedule_free_adamw", "schedule_free_self_tuning"),
        *("scion", "shampoo", "signum", "soap"),
    ] == NAMES


def test_path():
    assert reference_algorithms.path("nadamw").name == "nadamw.py"
    assert reference_algorithms.path("nadamw").is_file()


@pytest.mark.parametrize("name", ["adam", "schedules", "parts", "__init__", ""])
def test_unknown_name(name):
    with pytest.raises(errors.UserError, match=r"one of: adafactor, adamw, .*, soap\)"):
        reference_algorithms.path(name)


@pytest.mark.parametrize("name", NAMES)
def test_summary_is_the_docstrings_first_line(name):
    summary = reference_algorithms.summary(name)
    assert summary == load(name).__doc__.splitlines()[0]
    title = summary.partition(": ")[0].lower().replace("-", "_").replace(" ", "_")
    assert title == name
    assert summary.endswith(".")


def test_looking_imports_no_algorithm():
    code = (
        "import sys, reference_algorithms as r; [r.summary(n) for n in r.names()]; "
        "print([m for m in sys.modules if m.startswith('reference_algorithms.')])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


@pytest.mark.parametrize(("framework", "other"), [("jax", "torch"), ("torch", "jax")])
def test_one_framework_never_loads_the_other(framework, other):
    command = [sys.executable, "-c", WITHOUT_THE_OTHER, framework, other]
    output = subprocess.run(command, capture_output=True, text=True, check=False)
    assert output.stdout.strip() == f"{len(OPTIMIZER_FORMS)} True False", output.stderr


@pytest.mark.parametrize("name", NAMES)
def test_serves_both_frameworks(name):
    outline = loading.inspect(reference_algorithms.path(name))
    assert set(outline.frameworks) == {"jax", "pytorch"}
    assert outline.is_full_form == (name == "sam")
    for framework in outline.frameworks:
        assert loading.load(outline, framework).outline is outline


@pytest.mark.parametrize("name", OPTIMIZER_FORMS)
@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_making_it_reads_every_default(name, framework):
    """Before the first step already, since a name that nobody reads is the user's mistake."""
    point = spec.make_hyperparameters(load(name).DEFAULTS)
    make(name, framework, point)
    assert set(spec.unread(point)) <= CONSUMED_BY_THE_LIBRARY


@pytest.mark.parametrize("name", sorted(set(NAMES) - SELF_TUNING))
def test_search_space_has_the_defaults_names_and_holds_them(name):
    module = load(name)
    space = search_space.parse(module.SEARCH_SPACE, name)
    assert set(space.names) == set(module.DEFAULTS)
    for key, dimension in space.dimensions.items():
        default = module.DEFAULTS[key]
        if isinstance(dimension, search_space.Interval):
            assert dimension.low <= default <= dimension.high, key
        else:
            assert default in dimension.values, key


@pytest.mark.parametrize("name", sorted(SELF_TUNING))
def test_self_tuning_leaves_nothing_to_tune(name):
    module = load(name)
    assert set(module.DEFAULTS) <= CONSUMED_BY_THE_LIBRARY
    assert not hasattr(module, "SEARCH_SPACE")
    base = load({"nadamw_self_tuning": "nadamw"}.get(name, "schedule_free_adamw"))
    assert set(vars(module.FIXED)) | set(module.DEFAULTS) == set(base.DEFAULTS)


@pytest.mark.parametrize("name", OPTIMIZER_FORMS)
def test_learning_rate_is_the_schedules(name):
    module = load(name)
    point = spec.make_hyperparameters(module.DEFAULTS)
    values = vars(module.FIXED) if name in SELF_TUNING else module.DEFAULTS
    warmup_steps = round(values["warmup_factor"] * INFO.step_hint)
    function = loading.function_of(module.learning_rate)

    def rate(step):
        return function(step=step, hyperparameters=point, info=INFO) / values["learning_rate"]

    assert rate(0) == pytest.approx(1 / warmup_steps)
    assert rate(warmup_steps - 1) == pytest.approx(1)
    assert rate(99) == pytest.approx(1 if name in CONSTANT_RATE else 0.01)


@pytest.mark.parametrize("name", OPTIMIZER_FORMS)
def test_torch_steps_at_the_schedules_rate(name):
    """All groups alike, and the first one is what the log shows."""
    optimizer, scheduler = make(name, "torch")
    values = vars(load(name).FIXED) if name in SELF_TUNING else load(name).DEFAULTS
    optimizer.step()
    scheduler.step()
    warmup_steps = round(values["warmup_factor"] * INFO.step_hint)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(2 * values["learning_rate"] / warmup_steps)


@pytest.mark.parametrize("name", OPTIMIZER_FORMS)
@pytest.mark.parametrize("missing", sorted(LIBRARIES))
def test_a_missing_library_is_named_with_what_installs_it(name, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    make(name, "jax")
    if name not in LIBRARIES[missing]:
        make(name, "torch")
        return
    with pytest.raises(errors.UserError) as error:
        make(name, "torch")
    assert str(error.value) == (
        f"{missing} is not installed; this algorithm needs it: pip install 'algoperf[algorithms]'"
    )


def test_a_broken_library_says_so_itself(monkeypatch, tmp_path):
    from reference_algorithms.parts import libraries

    (tmp_path / "half_installed.py").write_text("import what_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_is_not_there"):
        libraries.optional("half_installed")


@pytest.mark.parametrize("name", ["muon", "normuon", "psgd_kron", "soap", "shampoo"])
def test_models_without_hidden_matrices_train_with_adamw_alone(name):
    """Embeddings, the output layer, norms and biases, and what has more than two dimensions."""
    import numpy as np

    shapes = {
        "embed/embedding": (7, 5), "norm/scale": (5,), "conv/kernel": (3, 3, 5, 5),
        "head/kernel": (5, 2), "head/bias": (2,),
    }  # fmt: skip
    initial, gradients = runs.initial_and_gradients(shapes)
    point = runs.point_of(name)
    adamw = {key: point[key] for key in runs.point_of("adamw")}
    for run_of in runs.RUNS.values():
        one = run_of(load(name), point, initial)
        other = run_of(load("adamw"), adamw, initial)
        for gradient in gradients[:3]:
            one.step(gradient)
            other.step(gradient)
        expected = other.values()
        for key, value in one.values().items():
            np.testing.assert_allclose(value, expected[key], rtol=1e-6, atol=1e-7)
