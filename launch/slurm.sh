#!/usr/bin/env bash
# One LinkNet run on the GPUs of a SLURM cluster:
#
#   sbatch launch/slurm.sh python -m linknet_jax.main --config configs/sgcls.py --workdir DIR
#
# Submit from the repository root, the virtual environment activated. DIR must be visible to all
# nodes. Set nodes, GPUs, CPUs and time below or as options of sbatch, and what your cluster wants
# besides (--partition, --account).
#SBATCH --job-name=linknet
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
# One task a GPU, all GPUs of the node visible to it: JAX finds the tasks by SLURM's variables and
# takes the GPU of the task's local number, so no --gpus-per-task.
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=linknet-%j.log
#SBATCH --open-mode=append
# A preempted job is queued again. So is one at its time limit, by this script: USR1 comes here
# 120 seconds before it. Not TERM, with which a cancelled job ends and which must not queue it again.
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
set -uo pipefail

if [[ $# -eq 0 ]]; then
  echo "usage: sbatch launch/slurm.sh COMMAND ..." >&2
  exit 2
fi

limit=''
srun --kill-on-bad-exit=1 "$@" &
run=$!
trap 'limit=1; kill -TERM "$run"' USR1 # every task saves and ends
wait "$run"
status=$?
if [[ -n $limit ]]; then
  wait "$run" # the signal ended the first one
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
