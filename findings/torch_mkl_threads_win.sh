#!/usr/bin/env bash
# PyTorch's intra-op threads follow MKL_NUM_THREADS, not OMP_NUM_THREADS, where both are set.
#
# Version: torch 2.13.0 from the package index, Linux x86-64, Python 3.11, at least two cores.
# Seen: OMP_NUM_THREADS=1 MKL_NUM_THREADS=2 gives torch.get_num_threads() == 2, and
#   OMP_NUM_THREADS=2 MKL_NUM_THREADS=1 gives 1. Each alone is honoured. PyTorch's notes on CPU threading name
#   both variables without saying which wins.
# Why it matters here: a benchmark that pins OMP_NUM_THREADS alone (as torchrun does, to 1) measures two threads
#   on a machine whose site profile exports MKL_NUM_THREADS; on small models that costs several times the processor
#   time. Pin both, and record torch.get_num_threads().
# Comes from: the MKL that the x86-64 wheels are built with, whose own count PyTorch reads at start.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ "$(getconf _NPROCESSORS_ONLN)" -lt 2 ]; then
    echo 'needs at least two cores: nothing shown'
    exit 0
fi
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy

threads() { env -u OMP_NUM_THREADS -u MKL_NUM_THREADS "$@" "$folder/venv/bin/python" -c 'import torch; print(torch.get_num_threads())'; }

fail=0
expect() {
    local expected=$1 actual
    shift
    actual=$(threads "$@")
    echo "$*: $actual threads"
    if [ "$actual" != "$expected" ]; then
        echo "changed: expected $expected"
        fail=1
    fi
}
"$folder/venv/bin/python" -c 'import torch; print("torch", torch.__version__)'
expect 1 OMP_NUM_THREADS=1
expect 1 MKL_NUM_THREADS=1
expect 2 OMP_NUM_THREADS=1 MKL_NUM_THREADS=2
expect 1 OMP_NUM_THREADS=2 MKL_NUM_THREADS=1
exit "$fail"
