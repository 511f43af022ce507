#!/usr/bin/env bash
# Translates lines from standard input with the newest run below runs, or with the run whose folder is given.
#
#   echo 'Am Anfang war das Wort.' | bash scripts/translate.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
exec python -m labo_fairseq translate "$@"
