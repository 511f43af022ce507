#!/usr/bin/env bash
# Runs or resumes every experiment of a grid; 'report' writes its tables.
#
#   bash scripts/experiment.sh run multi30k
#   bash scripts/experiment.sh report multi30k        --help lists all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq experiment "$@"
