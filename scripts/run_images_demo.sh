#!/usr/bin/env bash
# Images, from nothing: 5,000 handwritten digits, a small ResNet, LABO beside label smoothing, a report with figures.
#
#   bash scripts/run_images_demo.sh                             minutes on two cores
#   bash scripts/run_images_demo.sh --smoke                     less than a minute, meaningless scores
#   bash scripts/run_images_demo.sh --seed 2 --folder DIR training.epochs=12         options of 'labo-fairseq run'
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
[ -z "$labo_help" ] || exec python -m labo_fairseq run --help
runs=()
for method in ls labo; do
    printed=$(python -m labo_fairseq run digits resnet18 --criterion "$method" "$@")
    echo "$printed"
    runs+=("$(sed -n 's/^run  *//p' <<<"$printed" | tail -n 1)") # its directory, in the last line
done
exec python -m labo_fairseq report "${runs[@]}"
