#!/bin/bash
# Embed the archive as an array, any number of tasks. A failed task K of N again:
# SUNPIPE_PARTS=N sbatch --array=K jobs/embed.sh -c ...
#SBATCH --job-name=sunpipe-embed
#SBATCH --array=1-4
#SBATCH --nodes=1 --ntasks=1 --gpus-per-node=1 --cpus-per-task=8 --time=02:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe embed \
    --part "$SLURM_ARRAY_TASK_ID/${SUNPIPE_PARTS:-$SLURM_ARRAY_TASK_MAX}" "$@"
