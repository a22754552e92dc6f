#!/usr/bin/env bash
# With two processes, jax.device_put of a process's own jax.Array to a replicated sharding over the devices of both gives an array that
# jit computes with, and whose shards cannot be read. The same of a NumPy array or of a number, and a split sharding, are right.
#
# Version: jax and jaxlib 0.10.2 from the package index, Python 3.11, two processes on a CPU, a device each, gloo.
# Seen: jax.device_put(jnp.zeros(4), replicated) returns an array of shape (4,) over two devices; jnp.sum of it under jit is 0, and its
#   addressable_shards raise ValueError, "input arrays must have one shard each. An argument array had 2 shard(s)". So a checkpoint or
#   whoever reads a process's part fails long after the line that made the array. An identity under jit with out_shardings gives
#   an array with one readable shard.
# Why it matters here: a full-form submission that lays out its own jnp.zeros in this way trains, and cannot be saved. The library's
#   own algoperf.jax_sharding_utils.replicate goes by jit, and docs/devices.md says so.
# Comes from: jax/_src/dispatch.py (_device_put_sharding_impl) hands a sharding that other processes have devices of to pxla.shard_args,
#   with the array as it is; which of the two gives it a shard for each of the mesh's devices was not traced further.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2

cat >"$folder/place.py" <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np

rank, address = int(sys.argv[1]), sys.argv[2]
jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, 2, rank, local_device_ids=[rank])
mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))


def shards(array):
    assert float(jax.jit(jnp.sum)(array)) == 6
    try:
        return [shard.data.tolist() for shard in array.addressable_shards]
    except ValueError as error:
        return str(error)


values = np.arange(4.0, dtype=np.float32)
seen = {
    "NumPy, replicated": shards(jax.device_put(values, replicated)),
    "NumPy, split": shards(jax.device_put(values, split)),
    "jax.Array, split": shards(jax.device_put(jnp.asarray(values), split)),
    "jax.Array, replicated": shards(jax.device_put(jnp.asarray(values), replicated)),
    "jax.Array by jit": shards(jax.jit(lambda x: x, out_shardings=replicated)(jnp.asarray(values))),
}
if rank == 0:
    print("jax", jax.__version__)
    for name, value in seen.items():
        print(f"{name}: {value}")
    whole, half = [[0.0, 1.0, 2.0, 3.0]], [[0.0, 1.0]]
    right = [whole, half, half, whole]
    assert [value for name, value in seen.items() if name != "jax.Array, replicated"] == right
    assert "the input arrays must have one shard each" in " ".join(seen["jax.Array, replicated"].split())
    assert "had 2 shard(s)" in seen["jax.Array, replicated"]
PYTHON

port=$("$folder/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
"$folder/venv/bin/python" "$folder/place.py" 1 "localhost:$port" 2>"$folder/other.log" &
"$folder/venv/bin/python" "$folder/place.py" 0 "localhost:$port" 2>"$folder/first.log" || { cat "$folder/first.log" "$folder/other.log"; exit 1; }
wait
echo "as described"
