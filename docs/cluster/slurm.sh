#!/bin/bash
# A sweep over the nodes of a SLURM job, one process on each:
#
#     sbatch docs/cluster/slurm.sh --policy sws --policy matched --stuck-at 0.01 --chips 10000
#
# Submit it from the folder of memsim; --out lies on a disk that the first node reaches at least.
# Requeued, or submitted again with the same options, it goes on where it stopped.
#SBATCH --job-name=sweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=16G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

export COORDINATOR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):12345"

# every process takes its number from SLURM; where one ends badly, all end
exec srun --kill-on-bad-exit=1 bash -c 'exec python -m training.sweep "$@" --out runs/sweep --memory 14 --coordinator "$COORDINATOR" --processes "$SLURM_NTASKS" --process "$SLURM_PROCID"' sweep "$@"
