#!/usr/bin/env bash
# WMT'14 German → English: prepare, train on NUM_GPUS GPUs (default: all), translate, score.
#
#   bash scripts/run_wmt14_deen.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq run wmt14 de-en "$@"
