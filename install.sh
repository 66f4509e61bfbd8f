#!/usr/bin/env bash
# Make the virtual environment $VENV with the versions of constraints.txt.
# uv is used when it is on PATH, pip otherwise; both compile the byte code, which
# saves seconds at every start.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
venv=${VENV:-.venv}
python=${PYTHON:-python3.11}
extras=${EXTRAS:-mpi,mpich,hpc,dev}

if ! command -v "$python" >/dev/null; then
    python=python3
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "sunpipe needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2
    exit 1
fi
rm -f "$venv/.installed"
echo "setting up $venv (the largest part is torch)"
if command -v uv >/dev/null; then
    export UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
    [ -n "$UV_FIND_LINKS" ] || unset UV_FIND_LINKS
    [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
    uv pip install --quiet --python "$venv/bin/python" --compile-bytecode \
        --constraint constraints.txt --editable ".[$extras]"
else
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable ".[$extras]"
fi
touch "$venv/.installed"
