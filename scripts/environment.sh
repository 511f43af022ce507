# shellcheck shell=bash
# Sourced by the other scripts: makes or reuses the virtual environment and puts it on the PATH.
#
#   use_environment [EXTRA ...]      e.g. use_environment dev; what is installed already stays
#
# It also answers --help: the script's header comment, before anything is installed. The options of the program follow
# where its environment is there already.
#
# LABO_PYTHON  the Python to make it with (default: python3)
# LABO_VENV    where it lies (default: .venv-X.Y in the checkout); "none": install nothing, take the python on the PATH
#              and what it has, such as the CUDA torch of a container

LABO_ROOT="$(CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# sourced without arguments, so that these are the script's
labo_help=""
for labo_argument in "$@"; do
    case "$labo_argument" in
        -h | --help)
            labo_help=yes
            sed -n '2,$ { /^#/ !q; s/^# //; s/^#$//; p; }' "$LABO_ROOT/scripts/${0##*/}"
            break
            ;;
        --) break ;;
    esac
done

use_environment() {
    local python="${LABO_PYTHON:-python3}" version venv constraints
    if [ "${LABO_VENV:-}" = none ]; then
        export PYTHONPATH="$LABO_ROOT${PYTHONPATH:+:$PYTHONPATH}"
        python -c 'import labo_fairseq.criterions' >/dev/null || {
            echo "$0: the python on the PATH lacks what the line above names: install it, or unset LABO_VENV" >&2
            return 1
        }
        return
    fi
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 8))' 2>/dev/null)" || {
        [ -z "$labo_help" ] || exit 0
        echo "$0: '$python' is ${version:+Python }${version:-no Python that runs}: set LABO_PYTHON to a Python from 3.8 on" >&2
        return 1
    }
    venv="${LABO_VENV:-$LABO_ROOT/.venv-$version}"
    case "$LABO_ROOT$venv" in
        *:*)
            echo "$0: neither the checkout $LABO_ROOT nor the environment $venv may have a ':' in its path, which" \
                "separates paths: move it" >&2
            return 1
            ;;
    esac
    constraints="$LABO_ROOT/constraints/python-$version.txt"
    # those of the newest version with a file of its own
    [ -e "$constraints" ] || constraints="$LABO_ROOT/constraints/python-3.11.txt"
    if ! _labo_has_extras "$venv" "$constraints" "$@"; then
        if [ -n "$labo_help" ]; then
            printf '\nThe program has more options: --help lists them too once the environment is made, by a call without it.\n'
            exit 0
        fi
        _labo_check_tools "$python" "$version" "$venv" || return 1
        mkdir -p "$venv" || return 1
        # one set-up at a time; where there is no flock, the user sees to it
        (
            if command -v flock >/dev/null && ! flock --nonblock 9; then
                echo "Waiting for another set-up of $venv" >&2
                flock 9
            fi
            _labo_has_extras "$venv" "$constraints" "$@" || _labo_install "$python" "$venv" "$constraints" "$@"
        ) 9>"$venv/.labo-lock" || return 1
    fi
    export PATH="$venv/bin:$PATH"
}

# What an environment is made from: line 1 of .labo-complete; line 2 is the extras in it.
_labo_stamp() {
    local constraints="$1" file
    for file in "$LABO_ROOT/setup.py" "$LABO_ROOT/pyproject.toml" "$constraints"; do
        [ ! -e "$file" ] || cat "$file"
    done | cksum | tr '\n' ' '
    echo "$LABO_ROOT"
}

# Whether the environment is complete, with all these extras.
_labo_has_extras() {
    local venv="$1" constraints="$2" stamp="" extras="" extra
    shift 2
    { read -r stamp && read -r extras; } 2>/dev/null <"$venv/.labo-complete" || return 1
    [ "$stamp" = "$(_labo_stamp "$constraints")" ] || return 1
    for extra in "$@"; do
        case " $extras " in *" $extra "*) ;; *) return 1 ;; esac
    done
}

_labo_install() {
    local python="$1" venv="$2" constraints="$3" extras="" url
    shift 3
    # extras only add up: those of other scripts stay, so that no script undoes what another one installed
    [ ! -e "$venv/.labo-extras" ] || read -r extras <"$venv/.labo-extras" || true
    extras="$(tr ' ' '\n' <<<"$extras $*" | sort -u | xargs)"
    echo "Installing into $venv (once; a few minutes)" >&2
    rm -f "$venv/.labo-complete"
    "$python" -m venv "$venv" || return 1
    # the variable, unlike --constraint, also holds where pip builds a package; pip splits it at spaces
    url="$("$python" -c 'import pathlib, sys; print(pathlib.Path(sys.argv[1]).as_uri())' "$constraints")" || return 1
    if ! PIP_CONSTRAINT="$url" "$venv/bin/python" -m pip install --quiet --disable-pip-version-check pip ||
        ! PIP_CONSTRAINT="$url" "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --editable "${LABO_ROOT}[${extras// /,}]"; then
        echo "$0: pip could not install into $venv, for the reason above; the same command tries again" >&2
        return 1
    fi
    echo "$extras" >"$venv/.labo-extras"
    { _labo_stamp "$constraints" && echo "$extras"; } >"$venv/.labo-complete"
}

# What pip would miss after minutes: the modules that make an environment, and a compiler where fairseq has no wheel.
_labo_check_tools() {
    local python="$1" version="$2" venv="$3" wheel="" headers compiler advice
    "$python" -c 'import ensurepip, venv' 2>/dev/null || {
        echo "$0: '$python' cannot make a virtual environment: install its module venv (Debian, Ubuntu:" \
            "apt-get install python$version-venv), or set LABO_PYTHON to another Python" >&2
        return 1
    }
    case "$version $(uname -s) $(uname -m)" in
        "3.8 Linux x86_64" | "3.8 Darwin x86_64" | "3.12 Linux x86_64") return 0 ;;
        *" Linux x86_64") wheel=", or set LABO_PYTHON to a Python 3.12, for which it is ready-made" ;;
    esac
    # there from an earlier set-up
    if [ -x "$venv/bin/python" ] &&
        "$venv/bin/python" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("fairseq"))'; then
        return 0
    fi
    headers="$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')" || return 1
    for compiler in "${CC:-$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")')}" "${CXX:-c++}"; do
        # with options, such as gcc -pthread
        # shellcheck disable=SC2086
        $compiler -x c++ -c -o /dev/null - <<<'#include <vector>' 2>/dev/null || {
            advice="Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install"
            echo "$0: on Python $version fairseq is compiled, and there is no C++ compiler that works ('$compiler'):" \
                "install one ($advice)$wheel" >&2
            return 1
        }
    done
    [ -e "$headers/Python.h" ] || {
        advice="Debian, Ubuntu: apt-get install python$version-dev; Fedora: dnf install python$version-devel"
        echo "$0: on Python $version fairseq is compiled, and $headers/Python.h is not there: install Python's headers" \
            "($advice)$wheel" >&2
        return 1
    }
}

# run_images DATASET NETWORK [options, --network NAME among them]: one run on images, by default with NETWORK
run_images() {
    local dataset="$1" network="$2" options=()
    shift 2
    while [ $# -gt 0 ]; do
        case "$1" in
            --network) network="${2:?--network needs a name}" && shift ;;
            --network=*) network="${1#*=}" ;;
            *) options+=("$1") ;;
        esac
        shift
    done
    # older versions of bash take an empty array for an unset one
    exec python -m labo_fairseq run "$dataset" "$network" ${options[@]+"${options[@]}"}
}
