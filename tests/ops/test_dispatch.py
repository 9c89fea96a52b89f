"""The operations on other processors: the same tests with the oldest paths that the libraries have for this machine."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

# As on a processor of twenty years ago. numpy, torch, MKL, OpenBLAS and oneDNN each read one of them when they start.
OLDEST = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Prescott",
}
NUMERICAL = "single or double or fourier or whatever or entropy or photographs or symmetric or tied"


@pytest.mark.dispatch
def test_patch_selection_holds_with_the_oldest_paths_of_the_libraries():
    """Margins and ties are derived from arithmetic, so they hold whichever instructions compute (docs/numerics.md)."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/ops/test_patches.py", "-k", NUMERICAL]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(command, env={**clean, **OLDEST}, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 40, "hardly any test was chosen"
