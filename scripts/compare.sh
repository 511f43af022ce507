#!/usr/bin/env bash
# Compares finished runs, the baseline first, with paired bootstrap resampling.
#
#   bash scripts/compare.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq compare "$@"
