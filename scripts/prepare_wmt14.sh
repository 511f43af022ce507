#!/usr/bin/env bash
# WMT'14 English-German: Moses tokens, joint BPE of 40,000 operations, binarized for both directions.
#
#   bash scripts/prepare_wmt14.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq prepare wmt14 en-de "$@"
