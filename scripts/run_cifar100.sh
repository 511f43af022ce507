#!/usr/bin/env bash
# CIFAR-100 with the paper's recipe: bash scripts/run_cifar100.sh [--network NAME] [options]
#
#   bash scripts/run_cifar100.sh --criterion labo --seed 1
#   bash scripts/run_cifar100.sh --network mobilenetv2 --criterion ls --smoke          --help tells all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment images
network=resnet18
if [ "${1:-}" = --network ]; then
    network="${2:?--network needs a name}"
    shift 2
fi
exec python -m labo_fairseq run cifar100 "$network" "$@"
