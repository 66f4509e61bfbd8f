#!/bin/bash
# The HTML page: sbatch jobs/report.sh -c configs/sharp_vector_1024.toml
#SBATCH --job-name=sunpipe-report
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=2 --time=01:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe report "$@"
