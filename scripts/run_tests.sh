#!/usr/bin/env bash
# Makes its own environment and runs the tests. Arguments go to pytest:
#
#   bash scripts/run_tests.sh                      everything
#   bash scripts/run_tests.sh -k loss              the tests of the loss
#   LABO_PYTHON=python3.10 bash scripts/run_tests.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
use_environment dev
exec python -m pytest "$@"
