"""The server that forks trainers leaves nothing behind."""

import os
import subprocess
import sys
import time

REFEREE = """
import multiprocessing, os
from multiprocessing import forkserver, util

multiprocessing.get_context("forkserver").set_forkserver_preload(["algoperf.machine.fork_server"])
forkserver.ensure_running()
open(os.path.join(util.get_temp_dir(), "more"), "w").close()
print(sorted(os.listdir(os.environ["TMPDIR"])), flush=True)
os._exit(0)
"""


def test_it_leaves_no_folder(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    shown = subprocess.run(
        [sys.executable, "-c", REFEREE], env=environment, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("['pymp-")
    for _ in range(200):  # The server sees that its referee has ended, and ends as well.
        if not list(tmp_path.iterdir()):
            break
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
