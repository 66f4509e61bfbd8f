#!/bin/bash
# Fetch what [query] asks for, as an array of slices of the manifest, two at a time:
#   sbatch jobs/download.sh -c configs/data_sharp_vector.toml
# The first task to start asks JSOC, the others wait for it. JSOC sees one connection per running
# task (times fetch.connections): raise the number after % only when JSOC agrees.
# A failed task K of N again: SUNPIPE_PARTS=N sbatch --array=K jobs/download.sh -c ...
#SBATCH --job-name=sunpipe-fetch
#SBATCH --array=1-8%2
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=2 --time=12:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe fetch \
    --part "$SLURM_ARRAY_TASK_ID/${SUNPIPE_PARTS:-$SLURM_ARRAY_TASK_MAX}" "$@"
