#!/usr/bin/env bash
# Multi30k English → French: prepare, train on NUM_GPUS GPUs (default: all), translate, score.
#
#   bash scripts/run_multi30k_enfr.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq run multi30k en-fr "$@"
