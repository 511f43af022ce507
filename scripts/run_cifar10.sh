#!/usr/bin/env bash
# CIFAR-10 with the paper's recipe: bash scripts/run_cifar10.sh [--network NAME] [options]
#
#   bash scripts/run_cifar10.sh --criterion labo --seed 1
#   bash scripts/run_cifar10.sh --network mobilenetv2 --criterion ls --smoke          --help tells all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment images
run_images cifar10 resnet18 "$@"
