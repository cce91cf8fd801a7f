#!/bin/sh
# Makes the virtual environment. Usage: make_venv.sh PYTHON DIR. Names what the machine lacks.
set -eu
python=$1
venv=$2

lacks() {
    echo "itemforge: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    lacks "there is no '$python'; install Python 3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv), or name one: make PYTHON=python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    lacks "'$python' is $("$python" -V 2>&1), but 3.11 or newer is needed; name one: make PYTHON=python3.12"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    lacks "'$python' has no venv module; install it (Debian, Ubuntu: apt-get install python3-venv)"

echo "itemforge: making $venv (about two minutes, once)"
"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --constraint constraints.txt --editable '.[all,dev]'
