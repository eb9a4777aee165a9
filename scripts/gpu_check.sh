#!/usr/bin/env bash
# Everything that a machine with a GPU should say: bash scripts/gpu_check.sh [--minutes N] [--out FOLDER]
# Needs torch, triton and pytest, no network and no installation; what more it finds (safetensors, torchidl,
# compute-sanitizer) it uses, and it says what it did without. A summary comes last; the rest is in the folder.
# PYTHON names the interpreter (default .venv/bin/python where there is one, else python3).
# Exit 0: all that ran passed, 1: something failed.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-$([ -x .venv/bin/python ] && echo "$root/.venv/bin/python" || echo python3)}
cd "$here"
exec "$python" "$root/benchmarks/gpu_check.py" "$@"
