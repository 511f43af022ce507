#!/usr/bin/env bash
# Analyses of finished runs, the baseline first: frequency, confidence, calibration, decoding, overfitting or labels.
#
#   bash scripts/analyse.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq analyse "$@"
