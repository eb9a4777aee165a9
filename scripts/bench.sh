#!/usr/bin/env bash
# Installs the project and the peers into .venv, then runs all benchmarks: bash scripts/bench.sh
# The MNIST digits and CIFAR-10 pictures are looked for under $IDL_DATA_ROOT.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment ".[dev]"

# --no-deps: torchidl asks for MOSEK and Sphinx, which nothing here uses; at import it needs tqdm.
peers=(torchidl==0.0.4 torchdeq==0.1.0 tqdm)
if ! .venv/bin/python -c "import torchidl, torchdeq" 2>/dev/null; then
    if command -v uv >/dev/null; then
        uv pip install --quiet --python .venv/bin/python --no-deps "${peers[@]}"
    else
        .venv/bin/pip install --quiet --disable-pip-version-check --no-deps "${peers[@]}"
    fi
fi

for benchmark in equilibrium training projections; do
    printf '\n== %s\n' "$benchmark"
    .venv/bin/python "benchmarks/$benchmark.py"
done
printf '\n== sim\n'
.venv/bin/python benchmarks/sim.py --only time exact maps --peer-rows 16
