#!/usr/bin/env bash
# Installs the project into .venv on the first call, then trains: bash scripts/quickstart.sh [overrides]
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
root=$PWD
source scripts/environment.sh
prepare_environment .
cd "$here"  # runs/ and relative paths belong to the caller's folder
exec "$root/.venv/bin/idl" train "$@"
