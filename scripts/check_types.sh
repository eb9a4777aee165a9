#!/usr/bin/env bash
# Types against the oldest and the newest torch that are supported: bash scripts/check_types.sh [version ...]
# The newest is the one in .venv, which is what pip takes today; of other versions (the oldest of pyproject.toml
# where none is given) the wheel's types alone are unpacked into build/, nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment ".[dev]"

oldest() { sed -n 's/^ *"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml; }

# What pip there is: uv makes environments without one.
pip() {
    for python in .venv/bin/python "${PYTHON:-python3}"; do
        if "$python" -m pip --version >/dev/null 2>&1; then
            "$python" -m pip --disable-pip-version-check "$@"
            return
        fi
    done
    echo "check_types.sh: no pip here" >&2
    return 1
}

unpack_types() {
    local version=$1 folder=$2
    [ -x "$folder/python" ] && return
    rm -rf "$folder"
    mkdir -p "$folder"
    pip download --quiet --no-deps --only-binary=:all: --dest "$folder/wheel" "torch==$version.*" || return 1
    .venv/bin/python - "$folder" <<'EOF' || return 1
import sys
import zipfile
from pathlib import Path

folder = Path(sys.argv[1])
(wheel,) = (folder / "wheel").glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    kept = (".py", ".pyi", "py.typed")
    names = [n for n in archive.namelist() if n.startswith("torch/") and n.endswith(kept)]
    archive.extractall(folder, names)
EOF
    rm -r "$folder/wheel"
    # An interpreter that finds these types before its own torch: mypy then treats them as installed ones.
    printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" "$@"\n' "$PWD/$folder" "$PWD/.venv/bin/python" >"$folder/python"
    chmod +x "$folder/python"
}

# What a user's program sees of the library where it is installed: types, since there is a py.typed.
check_user_program() {
    local folder=build/user
    mkdir -p "$folder/installed"
    ln -sfn ../../../idl "$folder/installed/idl"
    ln -sfn ../../../idl_core "$folder/installed/idl_core"
    printf '#!/bin/sh\nPYTHONPATH="%s" exec "%s" "$@"\n' "$PWD/$folder/installed" "$PWD/.venv/bin/python" >"$folder/python"
    chmod +x "$folder/python"
    cat >"$folder/program.py" <<'EOF'
from typing import assert_type

import idl
import torch

x = torch.zeros(3, 6)
model = idl.ImplicitModel(input_dim=6, output_dim=2, hidden_dim=9, settings=idl.ImplicitSettings(tol=1e-8))
assert_type(model(x), torch.Tensor)
assert_type(model.f.tol, float)
assert_type(idl.ImplicitRNN(6, 2, 9, 4)(x[None]), torch.Tensor)
idl.ImplicitModel(6, 2, "nine")  # type: ignore[arg-type]
idl.ImplicitSettings(capa=0.5)  # type: ignore[call-arg]
EOF
    (cd "$folder" && ../../.venv/bin/mypy --no-error-summary --strict --config-file= --python-executable=./python \
        --cache-dir=../../.mypy_cache/user program.py)
}

code=0
newest=$(.venv/bin/python -c 'import importlib.metadata; print(importlib.metadata.version("torch"))')
echo "check_types.sh: torch $newest"
check_types || code=1
check_user_program || code=1
[ $# -gt 0 ] || set -- "$(oldest)"
for version in "$@"; do
    echo "check_types.sh: torch $version"
    if ! unpack_types "$version" "build/torch-$version"; then
        echo "check_types.sh: the wheel of torch $version cannot be had here: not checked"
        continue
    fi
    # What one version must be told to ignore another need not, and older ones leave functions of theirs untyped.
    check_types --python-executable="build/torch-$version/python" --no-warn-unused-ignores \
        --disable-error-code=no-any-return --disable-error-code=no-untyped-call \
        --disable-error-code=untyped-decorator \
        --cache-dir=".mypy_cache/torch-$version" || code=1
done
exit "$code"
