#!/usr/bin/env bash
# ImageNet with the paper's recipe: bash scripts/run_imagenet.sh [--network NAME] [options]
#
#   bash scripts/run_imagenet.sh --criterion labo --seed 1
#   bash scripts/run_imagenet.sh --network resnet152 --criterion ls --smoke          --help tells all options
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment images
run_images imagenet resnet50 "$@"
