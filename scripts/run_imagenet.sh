#!/usr/bin/env bash
# ImageNet with the paper's recipe. Options are those of 'labo-fairseq run', and --network:
#
#   bash scripts/run_imagenet.sh --criterion labo --seed 1                          resnet50
#   bash scripts/run_imagenet.sh --criterion ls --network resnet152 --smoke
#
# --network  resnet18, resnet50, resnet152, resnext29, mobilenetv2 or MODULE:FUNCTION (default: resnet50)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment images
run_images imagenet resnet50 "$@"
