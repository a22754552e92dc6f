"""The contract of version 0.5, adapted: names, dropout, the axis of devices."""

import importlib
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algoperf import random_utils
from algoperf.submission import older, requirements, submission_source
from algoperf.submission.older import names
from algoperf.trial import choices

OLDER = "from algorithmic_efficiency import spec\n"
PMAP = "import jax\n@jax.pmap\ndef step(x): ...\n"


def module(source, framework="jax"):
    made = type(sys)("a_submission")
    names.supply_removed(framework)(made)
    exec(source, made.__dict__)
    return made


@pytest.mark.parametrize(
    ("source", "helper", "framework", "expected"),
    [
        (OLDER, "", "pytorch", (True, False)),
        (OLDER + PMAP, "", "jax", (True, True)),
        (OLDER + PMAP, "", "pytorch", (True, False)),
        (OLDER + "import helper", PMAP, "jax", (True, True)),
        (PMAP, "", "jax", (True, True)),
        ("import helper", PMAP, "jax", (False, False)),  # a library beside it may know pmap
        ("import helper", OLDER, "jax", (True, False)),
        ("from algoperf import spec", "", "jax", (False, False)),
    ],
)
def test_the_generation_is_seen_from_the_source(tmp_path, source, helper, framework, expected):
    (tmp_path / "submission.py").write_text(source)
    (tmp_path / "helper.py").write_text(helper)
    contract = submission_source.contract_of(tmp_path / "submission.py", framework)
    assert (contract.older, contract.device_axis) == expected


def test_removed_names_do_what_their_replacements_do():
    made = module(
        "import jax, numpy as np\nimport jax.numpy as jnp\nfrom jax import random, tree_map\n"
        "doubled = jax.tree_map(lambda x: 2 * x, {'a': 1, 'b': (2, 3)})\n"
        "leaves = jax.tree_leaves({'a': 1, 'b': (2, 3)})\n"
        "clipped = jnp.clip(jnp.arange(5), a_min=1, a_max=3)\n"
        "lower = jnp.clip(jnp.arange(5), 2)\n"
        "one = jax.device_put_replicated({'w': jnp.ones(3)}, jax.local_devices())\n"
        "two = jax.device_put_sharded([jnp.ones(3)], jax.local_devices())\n"
        "key, area = random.KeyArray, np.trapz([1.0, 3.0])\n"
        "same = jnp.sin is __import__('jax').numpy.sin and np.ones is __import__('numpy').ones\n"
    )
    assert made.doubled == {"a": 2, "b": (4, 6)}
    assert made.leaves == [1, 2, 3]
    assert made.tree_map is jax.tree_util.tree_map
    assert made.clipped.tolist() == [1, 1, 2, 3, 3]
    assert made.lower.tolist() == [2, 2, 2, 3, 4]
    assert made.one["w"].shape == (1, 3) == made.two.shape
    assert (made.key, made.area, made.same) == (jax.Array, 2.0, True)


def test_nothing_of_it_leaks():
    module("import jax\njax.tree_map\nimport numpy\nnumpy.trapz")
    assert not hasattr(jax, "tree_map")
    assert not hasattr(jax, "device_put_replicated")
    assert not hasattr(jax.random, "KeyArray")
    assert not hasattr(np, "trapz")
    with pytest.raises(TypeError):
        jnp.clip(jnp.ones(2), a_min=0)


def test_the_older_package_is_the_same_package(monkeypatch):
    before = set(sys.modules)
    names.install_package()
    try:
        from algoperf import pytorch_utils, spec

        older_package = importlib.import_module("algorithmic_efficiency")
        assert importlib.import_module("algorithmic_efficiency.spec") is spec
        assert older_package.pytorch_utils is pytorch_utils
        assert spec.__name__ == "algoperf.spec"
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]


class Bound:
    """A workload that reports what it was called with."""

    step_hint = 7
    metrics_logger = None

    def init_model_fn(self, rng):
        return {"w": jnp.arange(3.0)}, None

    def model_fn(self, *arguments):
        return arguments


def view(device_axis, point=None):
    contract = older.Contract(older=True, device_axis=device_axis)
    return older.view(contract, Bound(), lambda batch: batch, point)


def test_dropout_is_fixed_by_the_hyperparameters_or_at_initialisation():
    call = ("params", "batch", None, "mode", "rng", True)
    assert view(False).workload.model_fn(*call) == (*call, None, None)
    newer = {"dropout_rate": 0.3, "use_running_average_bn": True}
    assert view(False).workload.model_fn(*call, **newer) == (*call, 0.3, True)
    point = SimpleNamespace(dropout_rate=0.25)
    assert view(False, point).workload.model_fn(*call) == (*call, 0.25, None)
    again = view(False, point).workload
    again.init_model_fn("rng", dropout_rate=0.5, aux_dropout_rate=0.1)
    assert again.model_fn(*call) == (*call, 0.5, None)


def test_parameters_and_batches_get_an_axis_of_devices_and_lose_it_again():
    seen = view(True)
    params, model_state = seen.workload.init_model_fn("rng")
    count = jax.local_device_count()
    assert params["w"].shape == (count, 3)
    assert model_state is None
    assert seen.first(params)["w"].tolist() == [0.0, 1.0, 2.0]
    assert seen.first(None) is None
    batch = seen.place({"inputs": np.zeros((6 * count, 4)), "targets": np.zeros(6 * count)})
    assert batch["inputs"].shape == (count, 6, 4)
    assert batch["targets"].shape == (count, 6)


def test_the_rest_of_the_workload_is_the_bound_one():
    seen = view(False).workload
    assert seen.step_hint == 7
    seen.metrics_logger = "logger"
    assert seen.metrics_logger == "logger" == seen._bound.metrics_logger
    assert hash(seen) == object.__hash__(seen)


def test_the_current_contract_sees_the_workload_itself():
    bound = Bound()
    seen = older.view(older.Contract(), bound, len, None)
    assert seen.workload is bound
    assert seen.place is len
    assert seen.first(bound) is bound


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"ag_news_wide": 24}, (24, "")),
        ({"ag_news": 32}, (32, "get_batch_size does not know ag_news_wide (KeyError); its 32 for "
                               "ag_news is taken")),
        ({}, (64, "get_batch_size does not know ag_news_wide (KeyError); the workload's own batch "
                  "size 64 is taken")),
        ({"ag_news_wide": None, "ag_news": 8}, (8, "get_batch_size does not know ag_news_wide "
                                                   "(TypeError); its 8 for ag_news is taken")),
    ],
)  # fmt: skip
def test_a_batch_table_is_asked_for_the_variant_then_for_its_base(table, expected):
    loaded = SimpleNamespace(
        functions={"get_batch_size": lambda workload_name: table[workload_name]},
        outline=SimpleNamespace(is_full_form=True),
    )
    plan = SimpleNamespace(batch_size=None, workload="ag_news_wide", base_workload="ag_news")
    scale = SimpleNamespace(batch_size=64, published_batch_size=None)
    assert choices.choose_batch_size(plan, loaded, None, scale) == expected
    plan.batch_size = 5
    assert choices.choose_batch_size(plan, loaded, None, scale) == (5, "")


def test_a_batch_of_the_published_workload_is_scaled_down_at_mini():
    """1,024 of AlgoPerf's ImageNet are 64 of mini's; a quarter of that is a quarter of this."""
    loaded = SimpleNamespace(
        functions={"get_batch_size": lambda workload_name: 256},
        outline=SimpleNamespace(is_full_form=True),
    )
    plan = SimpleNamespace(batch_size=None, workload="imagenet_vit", base_workload=None)
    scale = SimpleNamespace(batch_size=64, published_batch_size=1024)
    size, note = choices.choose_batch_size(plan, loaded, None, scale)
    assert size == 16
    assert note == (
        "get_batch_size asks for 256 of the published workload, whose batch is 1024; here that is "
        "16 of 64"
    )
    scale.published_batch_size = None
    assert choices.choose_batch_size(plan, loaded, None, scale) == (256, "")


def test_requirements_are_checked_and_never_installed(tmp_path):
    path = tmp_path / "submission.py"
    assert requirements.unmet(path) == []
    (tmp_path / "requirements.txt").write_text(
        "# ours\nnumpy>=2  # new\nnumpy<1.0\n-r more.txt\nnot_there_at_all\n"
        "jax; python_version < '3'\ngit+https://example.org/x.git\n\n"
    )
    installed = np.__version__
    assert requirements.unmet(path) == [
        f"numpy<1.0 ({installed} is installed)",
        "not_there_at_all (not installed)",
    ]
    assert requirements.unmet_text(path).startswith("its requirements.txt asks for numpy<1.0 (")


def test_the_line_of_an_indexed_scalar_in_what_is_logged(tmp_path):
    path = tmp_path / "submission.py"
    path.write_text(
        "def f(w, loss):\n    x = loss[0]\n"
        "    w.metrics_logger.append_scalar_metrics({'loss': loss.item()}, 1)\n"
    )
    assert submission_source.indexes_a_logged_scalar(path) is None
    path.write_text("def f(w, loss):\n    w.append_scalar_metrics(\n      {'loss': loss[0]}, 1)\n")
    assert submission_source.indexes_a_logged_scalar(path) == 3


def test_random_states_by_the_older_names():
    pair = (1, 2)
    assert random_utils.split(pair, 3) == random_utils.split(pair, 3)
    assert len({*random_utils.split(pair, 3), random_utils.fold_in(pair, 1), pair}) == 5
    assert all(0 <= word < 2**32 for word in random_utils.fold_in(pair, 9))
    key = np.array(random_utils.PRNGKey(5), np.uint32)
    np.testing.assert_array_equal(random_utils.split(key, 2), jax.random.split(key, 2))
    np.testing.assert_array_equal(random_utils.fold_in(key, 4), jax.random.fold_in(key, 4))
