#!/usr/bin/env bash
# Several nodes with torchrun: any run of 'labo-fairseq run', trained by all of them, scored by node 0. Start it on every
# node, in a checkout that all of them share, after the corpus is prepared (bash scripts/prepare_wmt14.sh):
#
#   NODES=2 NODE=0 MASTER=first-node:29500 bash scripts/multi_node_torchrun.sh wmt14 en-de [options]
#   NODES=2 NODE=1 MASTER=first-node:29500 bash scripts/multi_node_torchrun.sh wmt14 en-de [options]
#
# NUM_GPUS         GPUs of this node (default: all); 0: the CPU
# NUM_CPU_WORKERS  processes of this node, where it uses no GPU (default: 1)
#
# Where a node fails the training ends on all of them; the same commands resume it from its last checkpoint.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
use_environment plots
[ -z "$labo_help" ] || exec python -m labo_fairseq run --help
nodes="${NODES:-}" node="${NODE:-${SLURM_NODEID:-}}" master="${MASTER:-}"
if [ -z "$nodes" ] || [ -z "$node" ] || [ -z "$master" ]; then
    echo "$0: NODES is '$nodes', NODE '$node' and MASTER '$master': they must be the number of nodes, that of this one" \
        "from 0, and HOST:PORT of node 0" >&2
    exit 1
fi
exec python -m labo_fairseq run --nodes "$nodes" --node "$node" --master "$master" "$@"
