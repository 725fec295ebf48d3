#!/bin/sh
# Prints a Python that flaxgen runs on: `find_python.sh [COMMAND]` COMMAND or, without one, the first that fits (python3
# before others); `find_python.sh --newest` the newest that JAX's newest runs on. Says in one line when there is none.
OLDEST=11 NEWEST=14 NEWEST_JAX_FROM=12
lacking=

minor() { "$1" -c 'import sys; print(sys.version_info[1] if sys.version_info[0] == 3 else -1)' 2>/dev/null || echo -1; }

# Whether it is one of Python 3.$2 to 3.$3 that can make an environment; prints the path of the interpreter itself.
fits() {
    found=$(minor "$1")
    [ "$found" -ge "$2" ] && [ "$found" -le "$3" ] || return 1
    if ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        lacking=${lacking:-$1}
        return 1
    fi
    "$1" -c 'import sys; print(sys.executable)'
}

# The places of Python 3.$1: on the PATH, pyenv's, uv's.
places() {
    echo "python3.$1"
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$1".*/bin/python \
        "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}"/cpython-3."$1".*/bin/python 2>/dev/null
}

if [ "$1" = --newest ]; then
    for version in $(seq $NEWEST -1 $NEWEST_JAX_FROM); do
        for place in $(places "$version"); do fits "$place" "$version" "$version" && exit; done
    done
    echo "there is no Python 3.$NEWEST_JAX_FROM to 3.$NEWEST on this machine" >&2
elif [ -n "$1" ]; then
    fits "$1" $OLDEST $NEWEST && exit
    echo "PYTHON=$1: expected a Python 3.$OLDEST to 3.$NEWEST with ensurepip" >&2
else
    fits python3 $OLDEST $NEWEST && exit
    for version in 13 12 11 14; do
        for place in $(places $version); do fits "$place" $OLDEST $NEWEST && exit; done
    done
    missing="flaxgen needs Python 3.$OLDEST to 3.$NEWEST, and there is none here: install one, or name it with PYTHON=/path/to/python3"
    echo "${lacking:+$lacking has no ensurepip (on Debian and Ubuntu: apt install python3-venv); }$missing" >&2
fi
exit 1
