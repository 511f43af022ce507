#!/usr/bin/env bash
# The demo, from nothing: a virtual environment, the Bible, a small Transformer, BLEU and a figure.
#
#   bash scripts/run_demo.sh                       German to English, LABO
#   bash scripts/run_demo.sh --criterion ls        plain label smoothing, to compare with
#   bash scripts/run_demo.sh --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq run bible de-en "$@"
