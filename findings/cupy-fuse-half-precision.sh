#!/usr/bin/env bash
# cupy.fuse computes what depends on two Python numbers only in float16.
#
# In cupy.fuse()(lambda x, beta: (1 - beta) * x) with a float32 array x and beta = 0.999, the array never meets
# float16, but 1 - beta does: the traced kernel subtracts two half-precision numbers (cupy_subtract, float16). The half-precision
# numbers next to 0.999 are 0.99902 and 0.99854, so 1 - beta is off by two per cent or more. Without fuse Python computes it in float64. One
# would expect the number to be as exact as the array at least: NumPy's promotion rules (NEP 50) leave a Python number
# "weak", not small.
#
# Seen with cupy-cuda12x 14.2.0, NumPy 2.4.6 and Python 3.11, in the trace that fuse makes of a function, on a machine
# without a GPU (the kernel was not run). The names of the trace's classes are CuPy's own, not public.
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cupy-cuda12x==14.2.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys
import warnings

warnings.simplefilter("ignore")  # that no GPU is here
import cupy
import numpy as np

fusion = cupy._core.fusion
local = cupy._core._fusion_thread_local.thread_local


def types_in_kernel(function, beta):
    """Trace a function of a float32 vector and a Python float as cupy.fuse does; return its operations' types."""
    history = fusion._FusionHistory()
    parameter = history._fresh_premap_param(np.dtype("float32"))
    x = fusion._FusionVarArray(parameter, 1, False)
    _, number = history._gen_abstracted_args(beta)
    local.history, local.is_old_fusing = history, True
    try:
        function(x, number)
    finally:
        local.history, local.is_old_fusing = None, False
    return [(operation.submodule.name, [kind.name for kind in operation.dtypes]) for operation in history.op_list]


seen = types_in_kernel(lambda x, beta: (1 - beta) * x, 0.999)
print("cupy", cupy.__version__, "numpy", np.__version__)
for name, kinds in seen:
    print(name, kinds)
half = any("float16" in kinds for _, kinds in seen)
alone = types_in_kernel(lambda x, beta: beta * x, 0.999)
print("with one number only:", alone)
single = all("float16" not in kinds for _, kinds in alone)
print("as described" if half and single else "CHANGED")
sys.exit(not (half and single))
PYTHON
