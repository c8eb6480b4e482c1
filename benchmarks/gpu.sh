#!/usr/bin/env bash
# benchmarks/gpu.sh [OUT.md]: every check and timing that needs a GPU, in under 8 minutes on one. The table goes to stdout, or to OUT.md.
# Run it where the base environment is (containers/base/requirements.txt: its torch has CUDA), from any folder.
#   PYTHON=...             the interpreter of that environment (default: python3)
#   PLUMBLINE_DEVICE=cpu   a dry run of everything at tiny sizes, with torch on the CPU in the device's place
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} device=${PLUMBLINE_DEVICE:-cuda}
if [ "$device" = cuda ]; then
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
        || { echo "ERROR: torch sees no GPU. For a dry run: PLUMBLINE_DEVICE=cpu benchmarks/gpu.sh" >&2; exit 1; }
    "$python" -m pytest --version >/dev/null 2>&1 && timeout 120 "$python" -m pytest -q -m gpu -p no:cacheprovider tests/unit >&2
fi
timeout 420 "$python" benchmarks/bench_gpu.py --device "$device" > "${1:-/dev/stdout}"
