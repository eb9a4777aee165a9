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
exec .venv/bin/python -m pytest "$@"
