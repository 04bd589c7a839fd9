# Shared by the scripts beside it: one virtual environment, .venv, with the pinned dependencies.
# It is sourced, not run.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=.venv/bin/python

# The first Python that will do: $PYTHON alone where it is set, else the usual names.
find_python() {
    local candidate candidates=(python3 python3.13 python3.12 python3.11 python3.10)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' \
            2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "phosphene needs Python 3.10 or later with its venv module, and there is none" \
        "as ${candidates[*]}; name one: PYTHON=/path/to/python $0" >&2
    return 1
}

# install REQUIREMENT: make .venv where it is missing; install again only when what is asked for has
# changed.
install() {
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        local found
        found=$(find_python)
        "$found" -m venv --clear .venv
    fi
    local stamp=.venv/installed-${1//[^a-z]/} wanted
    wanted=$(pwd && "$python" -c 'import sys; print(sys.version)' &&
        cat pyproject.toml constraints.txt)
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    echo "Installing phosphene and its pinned dependencies into .venv (the first time," \
        "some minutes)" >&2
    "$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$1"
    echo "$wanted" > "$stamp"
}
