#!/usr/bin/env bash
# An example of several nodes with torchrun: WMT'14 English → German on NODES × 8 GPUs. Start it on every node,
# in a checkout that all of them share, after 'bash scripts/prepare_wmt14.sh' on one:
#
#   NODES=2 NODE=0 MASTER=first-node:29500 bash scripts/multi_node_torchrun.sh      and NODE=1 on the second
#
# Then 'bash scripts/run_wmt14_ende.sh' on one of them finds the training done, translates and scores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
use_environment plots
run=runs/wmt14/en-de/labo-seed1
gpus="${GPUS_PER_NODE:-8}"
mkdir -p "$run/node$NODE"
labo-fairseq config wmt14_en-de_labo --workers $((NODES * gpus)) --precision "${PRECISION:-bf16}" \
    --data runs/wmt14/data-en-de --save-dir "$run/checkpoints" >"$run/node$NODE/training.yaml"
exec torchrun --nnodes "$NODES" --node_rank "$NODE" --nproc_per_node "$gpus" \
    --master_addr "${MASTER%:*}" --master_port "${MASTER#*:}" \
    "$(command -v fairseq-hydra-train)" --config-dir "$PWD/$run/node$NODE" --config-name training
