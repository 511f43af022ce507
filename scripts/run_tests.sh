#!/usr/bin/env bash
# Makes its own environment and runs the tests, as many files at once as there are cores. Arguments go to pytest:
#
#   bash scripts/run_tests.sh                      everything
#   bash scripts/run_tests.sh --fast               tests/unit: no training, under two minutes
#   bash scripts/run_tests.sh -k loss              the tests of the loss
#   LABO_PYTHON=python3.10 bash scripts/run_tests.sh
set -euo pipefail
CDPATH="" cd -- "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
[ -z "$labo_help" ] || exit 0
use_environment dev
# the tests train on every core already; threads of their own would only wait for each other
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ "${1:-}" = --fast ]; then
    set -- tests/unit "${@:2}"
fi
exec python -m pytest --numprocesses auto --dist loadfile "$@"
