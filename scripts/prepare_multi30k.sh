#!/usr/bin/env bash
# Multi30k: Moses tokens, joint BPE of 10,000 operations, binarized for both directions of a language pair.
#
#   bash scripts/prepare_multi30k.sh [de-en | fr-en] [options]        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
pair=de-en
case "${1:-}" in ??-??) pair="$1"; shift ;; esac
exec python -m labo_fairseq prepare multi30k "$pair" "$@"
