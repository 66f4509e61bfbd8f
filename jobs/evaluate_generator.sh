#!/bin/bash
# Measure the newest generator against the archive:
#   sbatch jobs/evaluate_generator.sh -c configs/sharp_vector_1024.toml
#SBATCH --job-name=sunpipe-evaluate-generator
#SBATCH --nodes=1 --ntasks=1 --gpus-per-node=1 --cpus-per-task=8 --time=04:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe evaluate generator "$@"
