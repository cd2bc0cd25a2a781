# Sourced by the scripts beside it: makes .venv in the project folder, once.
#
# A stamp inside .venv holds the hash of what it was made from, and the extras that are in it: a second call installs nothing. A
# failed or interrupted installation leaves no stamp, so the next call repairs it.
# PYTHON names the interpreter to start from; python3 by default.

project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="$project/.venv/bin/python"
stamp="$project/.venv/installed.stamp"
install_log="$project/.venv/install.log"
gigabytes_needed=3

refuse() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

unset PYTHONDONTWRITEBYTECODE  # the tests start many processes, and each would compile everything again

version_of() {
    "$1" -c 'import sys; sys.stdout.write("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

check_interpreter() {
    local version
    version="$(version_of "$1")" ||
        refuse "\`$1\` does not run: install Python 3.11 to 3.13, or name one with PYTHON=/path/to/python3."
    case "$version" in
        3.11 | 3.12 | 3.13) ;;
        *) refuse "\`$1\` is Python $version, but 3.11 to 3.13 is needed: name another with PYTHON=/path/to/python3." ;;
    esac
    "$1" -c 'import venv, ensurepip' 2>/dev/null ||
        refuse "\`$1\` has no venv module: install it (on Debian and Ubuntu the package python$version-venv)."
}

check_disk() {
    local free
    free="$(df -Pk "$project" | awk 'NR == 2 { print int($4 / 1048576) }')"
    [ "$free" -ge "$gigabytes_needed" ] ||
        refuse "$project has $free GB of free disk, but about $gigabytes_needed GB are needed: make room, then call again."
}

fingerprint() {
    # The folder is part of it, because an environment does not survive being moved.
    local files=("$project/pyproject.toml" "$project/constraints.txt" "$project/lightning_stab/_version.py")
    { printf '%s\n' "$project" && cat "${files[@]}"; } | cksum
}

is_ready() {
    [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$(fingerprint)" ] &&
        [[ "$(tail -n 1 "$stamp")" = "$1"* ]] && "$python" -c '' 2>/dev/null &&
        { [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$python")" ]; }
}

make_venv() {
    # A whole one of the wanted version is kept: what it holds need not be installed again.
    "$python" -m pip --version >/dev/null 2>&1 &&
        [ "$(version_of "$python")" = "$(version_of "$1")" ] && return
    check_disk
    "$1" -m venv --clear "$project/.venv" >/dev/null ||
        refuse "\`$1 -m venv\` could not make $project/.venv: see the message above."
}

explain_failure() {
    if grep -qi 'no space left on device' "$install_log"; then
        refuse "the disk ran full while installing: make room (about $gigabytes_needed GB, also for TMPDIR), then call again."
    elif grep -qiE 'connection|name resolution|network is unreachable|timed out|proxy' "$install_log"; then
        refuse "the packages could not be downloaded: check the network, then call again (pip's own words: $install_log)."
    fi
    refuse "pip could not install the packages: $(grep -i 'error' "$install_log" | tail -n 1) (all of it: $install_log)"
}

# The extras of pyproject.toml to install are its argument: dev, or dev,bench.
prepare_environment() {
    local extras="${1:-dev}"
    is_ready "$extras" && return
    local interpreter="${PYTHON:-python3}"
    check_interpreter "$interpreter"
    rm -f "$stamp"
    make_venv "$interpreter"
    printf 'Installing into .venv: once, a few minutes ...\n' >&2
    (cd "$project" && "$python" -m pip install --disable-pip-version-check --retries 2 \
        --constraint constraints.txt --editable ".[$extras]") >"$install_log" 2>&1 || explain_failure
    { fingerprint && printf '%s\n' "$extras"; } >"$stamp"
}
