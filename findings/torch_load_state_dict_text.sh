#!/usr/bin/env bash
# A string in a PyTorch optimizer's state is the text of a generator object after load_state_dict.
#
# Version: torch 2.13.0 from the package index, Python 3.11.
# Seen: with optimizer.state[parameter] = {"phase": "fast", "recent": deque([1.0], maxlen=2)}, what
#   load_state_dict(state_dict()) leaves is {"phase": "<generator object ...>", "recent": deque([1.0])}: the string
#   is lost and the deque has no bound any more. Nothing is raised or warned of. In param_groups both stay as they were.
# Why it matters here: an optimizer that keeps its phase or a window of past values in its state goes on differently
#   after a restart, and a comparison with "fast" is false from then on.
# Comes from: torch/optim/optimizer.py, Optimizer.load_state_dict: the inner function _cast rebuilds every iterable
#   that is no tensor and no dict by type(value)(generator), to move tensors inside to the parameter's device and type.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy

"$folder/venv/bin/python" - <<'PYTHON'
import collections
import sys

import torch


def make():
    parameter = torch.nn.Parameter(torch.ones(2))
    return parameter, torch.optim.SGD([parameter], 0.1)


print("torch", torch.__version__)
parameter, saved = make()
saved.state[parameter] = {"phase": "fast", "recent": collections.deque([1.0], maxlen=2)}
saved.param_groups[0]["phase"] = "fast"
parameter, loaded = make()
loaded.load_state_dict(saved.state_dict())
state = loaded.state[parameter]
print("state:", state, "group:", loaded.param_groups[0]["phase"])
as_seen = state["phase"].startswith("<generator object") and state["recent"].maxlen is None
if not as_seen or loaded.param_groups[0]["phase"] != "fast":
    sys.exit("changed: expected the text of a generator, and a deque without a bound")
PYTHON
