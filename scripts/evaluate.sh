#!/usr/bin/env bash
# Scores a finished run with another checkpoint, an average of several, or another search.
#
#   bash scripts/evaluate.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq evaluate "$@"
