#!/usr/bin/env bash
# torch.optim.AdamW cannot be made again from its own `defaults`; every other optimizer of torch.optim can.
#
# Version: torch 2.13.0 from the package index, Linux x86-64, Python 3.11.
# Seen: type(optimizer)(parameters, **optimizer.defaults) returns an equal optimizer for Adam, NAdam, SGD and the
#   others, and for AdamW raises "unexpected keyword argument 'decoupled_weight_decay'". So does
#   torch.distributed.optim.ZeroRedundancyOptimizer, given the class and its instance's defaults. The documentation
#   of `Optimizer` calls `defaults` the default values of optimization options (used where a group names none).
# Why it matters here: to shard the state of an optimizer that a submission has made (ZeRO), or to copy it, one needs
#   its class and its settings; `defaults` hold them, but for the most used optimizer one name has to be left out.
# Comes from: AdamW is a subclass of Adam now, which its constructor calls with decoupled_weight_decay=True; Adam puts
#   that among the defaults, and AdamW's own constructor does not take it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy
cat >"$folder/again.py" <<'P'
import sys

import torch
import torch.distributed
from torch.distributed.optim import ZeroRedundancyOptimizer

print("torch", torch.__version__)
kinds = [each for each in vars(torch.optim).values() if isinstance(each, type) and each is not torch.optim.Optimizer]
kinds = [each for each in kinds if issubclass(each, torch.optim.Optimizer)]
refused = []
for kind in kinds:
    parameters = [torch.nn.Parameter(torch.zeros(3, 3))]
    first = kind(parameters, lr=0.1)
    try:
        again = kind(parameters, **first.defaults)
    except TypeError as error:
        refused.append(kind.__name__)
        print(f"{kind.__name__}: {error}")
    else:
        assert again.defaults == first.defaults, kind
print(f"made again: {len(kinds) - len(refused)} of {len(kinds)}")

torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
sharded = []
for kind in (torch.optim.Adam, torch.optim.AdamW):
    model = torch.nn.Linear(3, 3)
    try:
        ZeroRedundancyOptimizer(model.parameters(), kind, **kind(model.parameters()).defaults)
    except TypeError as error:
        print(f"ZeroRedundancyOptimizer of {kind.__name__}: {error}")
    else:
        sharded.append(kind.__name__)
print("sharded by its defaults:", *sharded)
torch.distributed.destroy_process_group()
sys.exit(refused != ["AdamW"] or sharded != ["Adam"])
P
if ! "$folder/venv/bin/python" "$folder/again.py" 2>&1; then
    echo 'changed: expected AdamW alone to be refused'
    exit 1
fi
