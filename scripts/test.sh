#!/usr/bin/env bash
# Lint, types and tests, in .venv: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment ".[dev]"

.venv/bin/ruff check .
# The folders datasets/ and conf/ are installed under other names; mypy finds them by those names here.
mkdir -p build/typing
ln -sfn ../../datasets build/typing/idl_datasets
ln -sfn ../../conf build/typing/idl_conf
MYPYPATH=build/typing .venv/bin/mypy --no-error-summary -p idl -p idl_core -p idl_cli -p idl_datasets
# The tests on a real SLURM run where one can be had: in a container or a CI machine, as root. Elsewhere, or
# with IDL_SLURM=no, they are skipped.
if [ "${IDL_SLURM:-auto}" = no ] || [ "$(id -u)" != 0 ] || ! bash scripts/slurm_local.sh; then
    echo "test.sh: no SLURM here; its tests are skipped" >&2
fi
exec .venv/bin/python -m pytest "$@"
