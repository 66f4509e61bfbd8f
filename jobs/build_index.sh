#!/bin/bash
# FAISS index of the embeddings, one task or an array; the part that ends last publishes:
#   sbatch jobs/build_index.sh -c configs/sharp_vector_1024.toml
#   sbatch --array=1-8 jobs/build_index.sh -c ...   (no more tasks than the embedding has files)
# A failed task K of N again: SUNPIPE_PARTS=N sbatch --array=K jobs/build_index.sh -c ...
#SBATCH --job-name=sunpipe-index
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=8 --time=01:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe index build \
    ${SLURM_ARRAY_TASK_ID:+--part "$SLURM_ARRAY_TASK_ID/${SUNPIPE_PARTS:-$SLURM_ARRAY_TASK_MAX}"} "$@"
