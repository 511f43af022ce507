# shellcheck shell=bash
# Sourced by the other scripts: makes or reuses the virtual environment and puts it on the PATH.
#
#   use_environment [EXTRAS]      e.g. use_environment dev
#
# LABO_PYTHON  the Python to make it with (default: python3)
# LABO_VENV    where it lives (default: .venv-X.Y in the checkout)

LABO_ROOT="$(CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

use_environment() {
    local extras="${1:-plots}" python="${LABO_PYTHON:-python3}" version constraints stamp
    version="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" || {
        echo "$0: cannot run '$python': set LABO_PYTHON to a Python from 3.8 on" >&2
        return 1
    }
    case "$version" in
        3.8 | 3.9 | 3.10) constraints="$LABO_ROOT/constraints/fairseq-0.12.txt" ;;
        *) constraints="$LABO_ROOT/constraints/fairseq-fixed.txt" ;;
    esac
    local venv="${LABO_VENV:-$LABO_ROOT/.venv-$version}"
    case "$LABO_ROOT$venv" in
        *:*)
            echo "$0: neither the checkout $LABO_ROOT nor the environment $venv may have a ':' in its path, which" \
                "separates paths: move it" >&2
            return 1
            ;;
    esac
    stamp="$(cat "$LABO_ROOT/setup.py" "$constraints" | cksum) $extras $LABO_ROOT"
    if [ "$(cat "$venv/.labo-complete" 2>/dev/null)" != "$stamp" ]; then
        echo "Installing into $venv (once; a few minutes)" >&2
        "$python" -m venv "$venv" || return 1
        # newer pip refuses the metadata of fairseq 0.12.2's omegaconf
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "pip<24.1" || return 1
        # the variable, unlike --constraint, also holds where pip builds a package; pip splits it at spaces
        constraints="$("$python" -c 'import pathlib, sys; print(pathlib.Path(sys.argv[1]).as_uri())' "$constraints")"
        PIP_CONSTRAINT="$constraints" "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --editable "${LABO_ROOT}[$extras]" || return 1
        echo "$stamp" >"$venv/.labo-complete"
    fi
    export PATH="$venv/bin:$PATH"
}
