#!/usr/bin/env bash
# Writes one page on finished runs, the baseline first: curves, scores, cost and the analyses.
#
#   bash scripts/report.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq report "$@"
