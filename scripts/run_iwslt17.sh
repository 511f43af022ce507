#!/usr/bin/env bash
# IWSLT'17 {German, French} → English in one model: prepare, train, translate, score.
#
#   bash scripts/run_iwslt17.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq run iwslt17 multilingual "$@"
