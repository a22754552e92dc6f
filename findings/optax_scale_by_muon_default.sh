#!/usr/bin/env bash
# optax.contrib.scale_by_muon() with its default arguments takes one bare array, but no dict of matrices.
#
# Version: optax 0.2.8, jax 0.10.2, from the package index, Python 3.11.
# Seen: for the parameters {"w": a 2 x 2 matrix} its update raises ValueError ("pytree structure error: different
#   types at key path"); for the matrix itself it returns an update. The documentation of weight_dimension_numbers says:
#   "None implies that all parameters are 2D matrices." Given a function that returns MuonDimensionNumbers() for
#   each leaf, as optax.contrib.muon does itself, the dict works.
# Why it matters here: in a chain, as a part of another optimizer, it fails in the first update of any model.
# Comes from: optax/contrib/_muon.py, scale_by_muon: the None is passed as a tree to jax.tree.map beside the dict.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optax==0.2.8 jax==0.10.2 jaxlib==0.10.2

JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import optax
from optax import contrib


def update(params, **arguments):
    transformation = contrib.scale_by_muon(**arguments)
    return transformation.update(params, transformation.init(params), params)[0]


def each(params):
    return jax.tree.map(lambda _: contrib.MuonDimensionNumbers(), params)


print("optax", optax.__version__, "jax", jax.__version__)
print("a matrix:", update(jnp.eye(2)))
print("a dict, with weight_dimension_numbers:", update({"w": jnp.eye(2)}, weight_dimension_numbers=each))
try:
    update({"w": jnp.eye(2)})
except ValueError as error:
    print("a dict:", str(error).splitlines()[0])
else:
    sys.exit("changed: expected a ValueError for a dict of matrices")
PYTHON
