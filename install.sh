#!/usr/bin/env bash
# Make the virtual environment $VENV with the versions of constraints.txt.
# uv does it when it is on PATH or can be installed, pip otherwise (USE_PIP=1 asks
# for pip); both compile the byte code, which saves seconds at every start.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
venv=${VENV:-.venv}
python=${PYTHON:-python3.11}
extras=${EXTRAS:-mpi,mpich,hpc,euv,ssl,video,track,dev}

if ! command -v "$python" >/dev/null; then
    python=python3
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "sunpipe needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2
    exit 1
fi
rm -f "$venv/.installed"
echo "setting up $venv (the largest part is torch)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)

# uv installs in seconds what takes pip minutes.
uv=$(command -v uv || true)
if [ -z "$uv" ] && [ "${USE_PIP:-0}" != 1 ]; then
    if "${pip[@]}" install --constraint constraints.txt uv; then
        uv=$venv/bin/uv
    else
        echo "uv could not be installed; going on with pip" >&2
    fi
fi
if [ -n "$uv" ] && [ "${USE_PIP:-0}" != 1 ]; then
    links=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}
    "$uv" pip install --quiet --python "$venv/bin/python" --compile-bytecode \
        ${links:+--find-links "$links"} --constraint constraints.txt --editable ".[$extras]"
else
    "${pip[@]}" install --constraint constraints.txt --editable ".[$extras]"
fi
touch "$venv/.installed"
