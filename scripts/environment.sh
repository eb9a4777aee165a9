# Sourced by the other scripts: makes .venv with the project installed, once for each pyproject.toml.
#   prepare_environment SPEC     SPEC is what pip installs in editable mode: "." or ".[dev]"
#   check_types OPTIONS          mypy on our packages
# Uses uv where it is installed, else venv and pip. PYTHON names the interpreter (default python3).

prepare_environment() {
    local spec=$1 stamp=.venv/.installed-$1
    # The stamp holds the project file it was made from: a changed dependency installs again.
    if [ -x .venv/bin/idl ] && cmp -s pyproject.toml "$stamp"; then return; fi
    if command -v uv >/dev/null; then
        [ -x .venv/bin/python ] || uv venv --quiet --python "${PYTHON:-python3}" .venv
        # Compiled, as pip does: where Python writes no bytecode every start would compile torch anew, 9 s.
        uv pip install --quiet --compile-bytecode --python .venv/bin/python -e "$spec"
    else
        [ -x .venv/bin/pip ] || "${PYTHON:-python3}" -m venv .venv
        .venv/bin/pip install --quiet --disable-pip-version-check -e "$spec"
    fi
    cp pyproject.toml "$stamp"
}

check_types() {
    # The folders datasets/ and conf/ are installed under other names; mypy finds them by those names here.
    mkdir -p build/typing
    ln -sfn ../../datasets build/typing/idl_datasets
    ln -sfn ../../conf build/typing/idl_conf
    MYPYPATH=build/typing .venv/bin/mypy --no-error-summary "$@" \
        -p idl -p idl_core -p idl_cli -p idl_datasets
}
