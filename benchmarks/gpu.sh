#!/usr/bin/env bash
# benchmarks/gpu.sh [OUT.md]: every check and timing of the evaluation that needs a GPU, in under 8 minutes on one. The table goes
# to stdout, or to OUT.md; each line as soon as it is known, so that a run that is cut short leaves what it found.
# Run it where the base environment is (containers/base/requirements.txt: its torch has CUDA), from any folder. Without it:
#   WHEELS=DIR             *.whl to be put before the interpreter's own packages first, without network
#   PYTHON=...             the interpreter (default: python3); 3.11 or later
#   PLUMBLINE_DEVICE=cpu   a dry run of everything at tiny sizes, on a stand-in for a GPU (tests/pretended_gpu.py)
set -euo pipefail
[ $# -eq 0 ] || exec > "$1"
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} device=${PLUMBLINE_DEVICE:-cuda}
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 # what the CPU's times are of
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export NUMBA_CACHE_DIR="$scratch/numba"
if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$scratch/site" "$WHEELS"/*.whl
    export PYTHONPATH="$scratch/site${PYTHONPATH:+:$PYTHONPATH}"
fi
"$python" - numpy scipy pandas pyarrow h5py numba threadpoolctl torch faiss <<'END'
import importlib, sys
missing = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as why:
        missing.append(f"{name} ({why})")
if missing:
    sys.exit("ERROR: cannot be imported: " + ", ".join(missing) + ". Give their wheels in a folder: WHEELS=DIR benchmarks/gpu.sh")
END
if [ "$device" = cuda ]; then
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
        || { echo "ERROR: torch sees no GPU. For a dry run: PLUMBLINE_DEVICE=cpu benchmarks/gpu.sh" >&2; exit 1; }
fi
tests=0
if "$python" -c 'import pytest, sklearn' 2>/dev/null; then
    mapfile -t files < <(grep -l 'pytest.mark.gpu' tests/unit/test_*.py) # alone: the others import packages of other environments
    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 timeout 90 "$python" -m pytest -q -m gpu -p no:cacheprovider -o addopts= "${files[@]}" >&2 || tests=$?
else
    echo "the tests marked gpu are left out: they need pytest and scikit-learn" >&2
fi
timeout 360 "$python" benchmarks/bench_gpu.py --device "$device"
exit "$tests" # after the table: a test that fails costs no timing
