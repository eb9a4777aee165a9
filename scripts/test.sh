#!/usr/bin/env bash
# Lint, types and tests, in .venv: bash scripts/test.sh [pytest arguments]
# The tests are shared by as many processes as there are cores, 4 at most; -n 0 runs them in one.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment ".[dev]"

# The tests start dozens of processes: without this each would compile our modules anew where this is set.
export PYTHONDONTWRITEBYTECODE=

.venv/bin/ruff check .
# Types are checked while one process of the tests compiles what the others wait for. Other packages' types
# are left out: nobody pins them, and whatever their next release says, only errors of ours are found here.
# scripts/check_types.sh, a job of CI, checks against the types of torch.
mkdir -p build
own_errors=(--no-site-packages --ignore-missing-imports --no-warn-unused-ignores)
for code in misc no-any-return no-untyped-call untyped-decorator; do  # of what is then without a type
    own_errors+=("--disable-error-code=$code")
done
check_types "${own_errors[@]}" --cache-dir=.mypy_cache/own \
    >build/types.txt 2>&1 &
types=$!
trap 'kill "$types" 2>/dev/null || true' EXIT
# The tests on a real SLURM run where one can be had: in a container or a CI machine, as root. Elsewhere, or
# with IDL_SLURM=no, they are skipped.
if [ "${IDL_SLURM:-auto}" = no ] || [ "$(id -u)" != 0 ] || ! bash scripts/slurm_local.sh; then
    echo "test.sh: no SLURM here; its tests are skipped" >&2
fi
code=0
.venv/bin/python -m pytest -n auto --maxprocesses=4 --dist=worksteal "$@" || code=$?
if ! wait "$types"; then
    cat build/types.txt
    echo "test.sh: mypy found the above" >&2
    code=1
fi
exit "$code"
