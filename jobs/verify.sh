#!/bin/bash
# Read a dataset again and say what is wrong with it:
#   sbatch jobs/verify.sh -c configs/sharp_vector_1024.toml --against-archive
#SBATCH --job-name=sunpipe-verify
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=4 --time=04:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe verify "$@"
