#!/usr/bin/env bash
# IWSLT'14 French → English: prepare, train on NUM_GPUS GPUs (default: all), translate, score.
#
#   bash scripts/run_iwslt14_fren.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq run iwslt14 fr-en "$@"
