#!/bin/bash
# Draw, generate and measure patches as an array, any number of tasks:
#     sbatch --array=1-8 jobs/sample.sh -c configs/sharp_vector_1024.toml
# A failed task K of N again: SUNPIPE_PARTS=N sbatch --array=K jobs/sample.sh -c ...
#SBATCH --job-name=sunpipe-sample
#SBATCH --array=1-4
#SBATCH --nodes=1 --ntasks=1 --gpus-per-node=1 --cpus-per-task=8 --time=04:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe sample \
    --part "$SLURM_ARRAY_TASK_ID/${SUNPIPE_PARTS:-$SLURM_ARRAY_TASK_MAX}" "$@"
