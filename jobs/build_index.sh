#!/bin/bash
# FAISS index of the embeddings: sbatch jobs/build_index.sh -c configs/sharp_vector_1024.toml
#SBATCH --job-name=sunpipe-index
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=8 --time=01:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun sunpipe index build "$@"
