#!/usr/bin/env bash
# A grid of runs: bash scripts/experiment.sh multi30k; its tables: bash scripts/experiment.sh report multi30k
#
#   bash scripts/experiment.sh [report] GRID [options]        --help tells them all
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq experiment "$@"
