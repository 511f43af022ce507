#!/usr/bin/env bash
# CIFAR-100 with the paper's recipe. Options are those of 'labo-fairseq run', and --network:
#
#   bash scripts/run_cifar100.sh --criterion labo --seed 1                          resnet18
#   bash scripts/run_cifar100.sh --criterion ls --network mobilenetv2 --smoke
#
# --network  resnet18, resnet50, resnet152, resnext29, mobilenetv2 or MODULE:FUNCTION (default: resnet18)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment images
run_images cifar100 resnet18 "$@"
