#!/usr/bin/env bash
# Images, from nothing: 5,000 handwritten digits, a small ResNet, LABO beside label smoothing, a report with figures.
#
#   bash scripts/run_images_demo.sh                             minutes on two cores
#   bash scripts/run_images_demo.sh --smoke                     less than a minute, meaningless scores
#   bash scripts/run_images_demo.sh --seed 2 --folder DIR training.epochs=12         options of 'labo-fairseq run'
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
folder=runs seed=1 smoke="" previous=""
for argument in "$@"; do
    case "$previous" in
        --folder) folder="$argument" ;;
        --seed) seed="$argument" ;;
    esac
    case "$argument" in
        --smoke) smoke="-smoke" ;;
        -h | --help) exec python -m labo_fairseq run --help ;;
    esac
    previous="$argument"
done
for method in ls labo; do
    python -m labo_fairseq run digits resnet18 --criterion "$method" "$@"
done
exec python -m labo_fairseq report "$folder/digits/resnet18/"{ls,labo}"-seed$seed$smoke"
