#!/usr/bin/env bash
# Importing a function of scipy.special imports numpy.f2py, a front end for Fortran, and charset_normalizer where that is installed.
#
# Versions: scipy 1.17.1, numpy 2.4.6 and charset-normalizer 3.5.2 from the package index, Python 3.11.
# Seen: `from scipy.special import betaln` loads numpy.f2py, numpy.testing and charset_normalizer, which `import numpy` does not. By
#   -X importtime numpy.f2py is .56 of the 1.45 s of the import (a busy machine). With SCIPY_ARRAY_API unset, as it is by default, nothing of it is used.
# Why it matters here: a command that takes seconds paid .15 s for the logarithm of a beta function, which is a product where its arguments
#   are whole steps apart (scoring/analysis/pooled_model.py).
# Comes from: scipy/_lib/array_api_compat/numpy/__init__.py clones numpy's namespace by name (scipy/_lib/array_api_compat/_internal.py). numpy
#   loads its submodules at first use by a __getattr__ of its own, so that to ask for each name loads all of them; f2py imports charset_normalizer if it can.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet scipy==1.17.1 numpy==2.4.6 charset-normalizer==3.5.2

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy
import scipy

print("scipy", scipy.__version__, "numpy", numpy.__version__)
names = ("numpy.f2py", "numpy.testing", "charset_normalizer")
before = [name for name in names if name in sys.modules]
from scipy.special import betaln

after = [name for name in names if name in sys.modules]
print("loaded by numpy:", before, "and after scipy.special:", after)
if before or after != list(names):
    sys.exit("changed: expected all three after scipy.special alone")
PYTHON
