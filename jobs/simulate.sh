#!/bin/bash
# An archive of simulated active regions, one process per core:
#   sbatch jobs/simulate.sh --records 5000 --errors
#SBATCH --job-name=sunpipe-simulate
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=16 --time=04:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe simulate --jobs "${SLURM_CPUS_PER_TASK:-1}" "$@"
