"""Which variables are recorded as settings that move the clock, and whether a cache is warm."""

import pytest

from algoperf.machine import environment
from algoperf.run_folder import run_log


def test_variables_that_move_the_clock_are_recorded_where_they_are_set():
    variables = {
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "100",
        "KMP_BLOCKTIME": "0",
        "MKL_DYNAMIC": "FALSE",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
        "JAX_PLATFORMS": "cpu",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "LD_PRELOAD": "/lib/libjemalloc.so",
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
    }
    others = {
        "OMP_NUM_THREADS": "1",  # recorded as the framework's threads
        "OMP_PROC_BIND": "",  # set to nothing
        "TF_VAR_token": "secret",
        "CUDA_HOME": "/usr/local/cuda",
        "PYTORCH_VERSION": "2.13",
        "NCCL_DEBUG": "INFO",
        "HOME": "/root",
        "API_TOKEN": "secret",
    }
    assert environment.settings({**variables, **others}) == variables
    assert environment.settings(others) == {}


@pytest.mark.parametrize(
    ("value", "recorded"),
    [("0", "1 device"), ("3", "1 device"), ("GPU-a,GPU-b", "2 devices"), ("", "0 devices")],
)
def test_of_devices_their_number_counts_and_of_folders_that_there_is_one(value, recorded):
    variables = {"CUDA_VISIBLE_DEVICES": value, "JAX_COMPILATION_CACHE_DIR": "/somewhere"}
    assert environment.settings(variables) == {
        "CUDA_VISIBLE_DEVICES": recorded,
        "JAX_COMPILATION_CACHE_DIR": "set",
    }
    assert environment.settings({"CUDA_VISIBLE_DEVICES": "-1"}) == {
        "CUDA_VISIBLE_DEVICES": "0 devices"
    }


def test_a_cache_is_warm_once_it_holds_something(tmp_path):
    variables = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
    assert environment.compilation_cache("jax", variables) == "cold"
    (tmp_path / "cache").mkdir()
    assert environment.compilation_cache("jax", variables) == "cold"
    (tmp_path / "cache" / "jit_step-cache").touch()
    assert environment.compilation_cache("jax", variables) == "warm"
    assert environment.compilation_cache("pytorch", variables) is None
    assert environment.compilation_cache("jax", {}) is None
    remote = {"JAX_COMPILATION_CACHE_DIR": "gs://bucket/cache"}
    assert environment.compilation_cache("jax", remote) == "warm"


@pytest.mark.parametrize(("nproc", "threads"), [("1", 1), ("", 4), ("0", 4), ("many", 4)])
def test_the_threads_of_xla(nproc, threads):
    assert environment.xla_threads({"NPROC": nproc}, cores=4) == threads


def test_settings_that_move_the_clock_split_pools_and_leave_old_hashes_alone():
    old = {"workload": "digits", "hardware": {"threads": 2}, "trial": 1}
    assert run_log.configuration_hash(old) == "08b537ec72a83b16"  # as before they were recorded
    pools = [
        run_log.with_hashes({**old, **more})["pool"]
        for more in (
            {},
            {"framework_threads": 1},
            {"environment": {"OMP_WAIT_POLICY": "passive"}},
            {"compilation_cache": "cold"},
            {"compilation_cache": "warm"},
        )
    ]
    assert all(pools.count(pool) == 1 for pool in pools)
    # A study's second trial finds the cache that the first one filled: one configuration.
    warm, cold = ({**old, "compilation_cache": state} for state in ("warm", "cold"))
    assert run_log.configuration_hash(warm) == run_log.configuration_hash(cold)
