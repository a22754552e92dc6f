"""What it costs two processes of JAX to agree on what follows a step: by the library's sockets, by
the key-value store and the barriers of `jax.distributed`'s client, and by its devices.

    python tests/benchmarks/jax_agreement.py [--times 500]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from jax.experimental import multihost_utils

from algoperf import backends


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=500)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--meeting")
    given = parser.parse_args()
    if given.rank is not None:
        measure(given.rank, given.meeting, given.times)
        return
    with tempfile.TemporaryDirectory() as folder:
        words = ["--meeting", str(Path(folder) / "meeting"), "--times", str(given.times)]
        children = [
            subprocess.Popen([sys.executable, __file__, "--rank", str(rank), *words])
            for rank in (0, 1)
        ]
        if max(child.wait() for child in children):
            raise SystemExit(1)


def measure(rank, meeting, times):
    ranks = backends.join("jax", rank, 2, meeting, processes=2)
    from jax._src import distributed  # Only to compare with: JAX has no public name for it.

    client = distributed.global_state.client

    def by_store(number):
        client.key_value_set_bytes(f"agree/{number}/{rank}", str(number + rank).encode())
        theirs = client.blocking_key_value_get_bytes(f"agree/{number}/{1 - rank}", 10**6)
        return max(number + rank, int(theirs))

    def by_barrier(number):
        client.wait_at_barrier(f"barrier/{number}", 10**6)
        return number + 1

    def by_devices(number):
        return int(multihost_utils.process_allgather(np.int32(number + rank)).max())

    ways = {
        "sockets": lambda number: ranks.largest(number + rank),
        "barrier, which tells no value": by_barrier,
        "key-value store": by_store,
        "process_allgather": by_devices,
    }
    for name, agree in ways.items():
        spent_s = []
        for number in range(times + 10):
            began_s = time.perf_counter()
            assert agree(number) == number + 1
            spent_s.append(time.perf_counter() - began_s)
        if rank == 0:
            spent_us = sorted(1e6 * each for each in spent_s[10:])
            low, high = spent_us[times // 20], spent_us[-times // 20]
            median = statistics.median(spent_us)
            print(f"{name}: {median:.0f} us (5 % below {low:.0f}, above {high:.0f})", flush=True)
    ranks.leave()


if __name__ == "__main__":
    main()
