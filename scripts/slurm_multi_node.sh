#!/usr/bin/env bash
# Several nodes with SLURM: sbatch scripts/slurm_multi_node.sh wmt14 en-de [options of 'labo-fairseq run']
# after the corpus is prepared (bash scripts/prepare_wmt14.sh), from the top of a checkout that all nodes share. Options
# of sbatch stand before the script and take the place of these:
#SBATCH --job-name=labo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=72:00:00
#SBATCH --requeue
set -euo pipefail
if [ -z "${SLURM_JOB_NUM_NODES:-}" ]; then
    # not in a job, where this is a copy beside which no other script lies
    source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
    [ -z "$labo_help" ] || exit 0
    echo "$0: not in a job of SLURM: submit it, as in sbatch $0 wmt14 en-de" >&2
    exit 1
fi
export NODES="$SLURM_JOB_NUM_NODES"
MASTER="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):${MASTER_PORT:-29500}"
export MASTER
# one task per node, which learns its number from SLURM_NODEID; where one fails, all end
exec srun --kill-on-bad-exit=1 bash scripts/multi_node_torchrun.sh "$@"
