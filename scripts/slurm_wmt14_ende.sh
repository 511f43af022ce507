#!/usr/bin/env bash
# An example of several nodes with SLURM: sbatch scripts/slurm_wmt14_ende.sh
# after 'bash scripts/prepare_wmt14.sh', from the top of a checkout that all nodes share.
#SBATCH --job-name=labo-wmt14
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=72:00:00
#SBATCH --requeue
set -euo pipefail
export NODES="$SLURM_JOB_NUM_NODES" GPUS_PER_NODE="${SLURM_GPUS_ON_NODE:-8}"
MASTER="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):29500"
export MASTER
# one task a node; each learns its number from SLURM_NODEID
srun bash scripts/multi_node_torchrun.sh
