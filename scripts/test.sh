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
# The folders datasets/ and conf/ are installed under other names; mypy finds them by those names here.
mkdir -p build/typing
ln -sfn ../../datasets build/typing/idl_datasets
ln -sfn ../../conf build/typing/idl_conf
# Types are checked while one process of the tests compiles what the others wait for.
MYPYPATH=build/typing .venv/bin/mypy --no-error-summary -p idl -p idl_core -p idl_cli -p idl_datasets \
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
