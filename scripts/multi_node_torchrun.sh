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
nodes="${NODES:-}" node="${NODE:-${SLURM_NODEID:-}}" gpus="${GPUS_PER_NODE:-8}"
for number in "$nodes" "$node" "$gpus"; do
    case "$number" in
        "" | *[!0-9]*)
            echo "$0: NODES is '$nodes', NODE '$node' and GPUS_PER_NODE '$gpus': they must be numbers" >&2
            exit 1
            ;;
    esac
done
run=runs/wmt14/en-de/labo-seed1
mkdir -p "$run/node$node"
python -m labo_fairseq config wmt14_en-de_labo --workers $((nodes * gpus)) --precision "${PRECISION:-bf16}" \
    --data runs/wmt14/data-en-de --save-dir "$run/checkpoints" >"$run/node$node/training.yaml"
exec python -m torch.distributed.run --nnodes "$nodes" --node_rank "$node" --nproc_per_node "$gpus" \
    --master_addr "${MASTER%:*}" --master_port "${MASTER#*:}" \
    --module fairseq_cli.hydra_train --config-dir "$PWD/$run/node$node" --config-name training
