#!/usr/bin/env bash
# IWSLT'17 German and French to English: 16k SentencePiece units for all three languages, binarized.
#
#   bash scripts/prepare_iwslt17.sh [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq prepare iwslt17 multilingual "$@"
