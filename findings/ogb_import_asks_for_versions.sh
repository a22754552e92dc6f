#!/usr/bin/env bash
# Importing ogb starts threads that ask the package index for newer versions, whatever OUTDATED_IGNORE says.
#
# Versions: ogb 1.3.6 and outdated 0.2.2 (with setuptools 80.9.0, whose pkg_resources outdated imports) from the package index,
#   Python 3.11. ogb is installed without its dependencies, of which its import needs none but outdated.
# Seen: after `import ogb` there are threads that are no daemons, and both packages have been asked for over the network. ogb sets
#   OUTDATED_IGNORE=1 itself before it does so, and a user's own setting changes nothing: the variable silences warnings alone.
#   Where outdated cannot be imported, there is no thread and no request, and all else of ogb works.
# Why it matters here: a benchmark may not use the network at import, a second thread takes processor time from a clock, and a process whose
#   network answers nobody cannot end before the request gives up. We hide outdated while we import ogb's graphs of molecules.
# Comes from: ogb's version.py starts a thread with outdated.check_outdated, which asks without looking at the variable; and outdated,
#   when it is imported, checks its own version in another thread.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet outdated==0.2.2 setuptools==80.9.0
"$folder/venv/bin/pip" install --quiet --no-deps ogb==1.3.6

cat >"$folder/look.py" <<'PYTHON'
import os
import sys
import threading

import requests

asked = set()


def refuse(session, method, url, **options):
    asked.add(url.rstrip("/").split("/")[-2])
    raise requests.ConnectionError("this script lets nobody use the network")


requests.sessions.Session.request = refuse
if sys.argv[1] == "hidden":
    sys.modules["outdated"] = None
started = []
start = threading.Thread.start
threading.Thread.start = lambda thread: (started.append(thread.daemon), start(thread))

import ogb

for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
ignored = os.environ.get("OUTDATED_IGNORE")
print(f"ogb {ogb.__version__}, {sys.argv[1]}: OUTDATED_IGNORE={ignored}, threads that are daemons {started}, asked for {sorted(asked)}")
expected = ([], set()) if sys.argv[1] == "hidden" else ([False, False], {"ogb", "outdated"})
if (started, asked) != expected or ignored != "1":
    sys.exit(f"changed: expected {expected}")
PYTHON
OUTDATED_IGNORE=1 XDG_CACHE_HOME=$folder TMPDIR=$folder "$folder/venv/bin/python" -W ignore "$folder/look.py" installed
OUTDATED_IGNORE=1 XDG_CACHE_HOME=$folder TMPDIR=$folder "$folder/venv/bin/python" -W ignore "$folder/look.py" hidden
