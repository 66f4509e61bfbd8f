#!/bin/bash
# Fetch the configured records: sbatch jobs/download.sh -c configs/sharp_vector_1024.toml
#SBATCH --job-name=sunpipe-fetch
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=1 --time=12:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun sunpipe fetch "$@"
