#!/usr/bin/env bash
# Of PyTorch's optimizers four forms do not step parameters that its own fully_shard (FSDP2) has divided: Adafactor, Rprop,
# and the fused forms of SGD and Adagrad. Fused AdamW does, and so does Muon.
#
# Version: torch 2.13.0 from the package index, Python 3.11, on a CPU: one process, gloo, a mesh of one device.
# Seen: a linear layer is divided, and one step is asked for. SGD(fused=True) and Adagrad(fused=True) raise NotImplementedError (no
#   sharding strategy for aten._fused_sgd_ and aten._fused_adagrad_), while AdamW(fused=True) steps. Adafactor raises RuntimeError at
#   an in-place power of a norm that the processes have parts of, Rprop at an in-place index_put_. All the others step as usual.
# Why it matters here: an optimizer that trains on one device ends at its first step where parameters are divided, and by a
#   setting (fused) that changes no number. `algoperf run --shard parameters` unsets it, and tries an optimizer before the first step.
# Comes from: torch/distributed/tensor/_ops names the operations that know divided tensors; of the fused optimizers it has Adam's
#   and AdamW's alone. In-place operations whose result would be divided otherwise than their input are refused.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy

OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch
from torch import distributed, nn, optim
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

print("torch", torch.__version__)
distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
TRIED = {
    "AdamW(fused=True)": lambda params: optim.AdamW(params, fused=True),
    "SGD()": lambda params: optim.SGD(params, lr=0.1),
    "SGD(fused=True)": lambda params: optim.SGD(params, lr=0.1, fused=True),
    "Adagrad()": lambda params: optim.Adagrad(params),
    "Adagrad(fused=True)": lambda params: optim.Adagrad(params, fused=True),
    "Adafactor()": lambda params: optim.Adafactor(params),
    "Rprop()": lambda params: optim.Rprop(params),
    "RMSprop()": lambda params: optim.RMSprop(params),
    "Muon()": lambda params: optim.Muon([value for value in params if value.ndim == 2]),
}
EXPECTED = {
    "SGD(fused=True)": "NotImplementedError",
    "Adagrad(fused=True)": "NotImplementedError",
    "Adafactor()": "RuntimeError",
    "Rprop()": "RuntimeError",
}


def outcome(make):
    """What comes of one step of a divided linear layer."""
    layer = nn.Linear(4, 3)
    fully_shard(layer, mesh=mesh)
    optimizer = make(layer.parameters())
    layer(torch.ones(2, 4)).sum().backward()
    try:
        optimizer.step()
    except (NotImplementedError, RuntimeError) as error:
        print(f"  {str(error).strip().splitlines()[0]}")
        return type(error).__name__
    return "steps"


changed = []
for name, make in TRIED.items():
    seen = outcome(make)
    print(f"{name}: {seen}")
    if seen != EXPECTED.get(name, "steps"):
        changed.append(name)
if changed:
    sys.exit(f"changed: {', '.join(changed)}")
PYTHON
