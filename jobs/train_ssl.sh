#!/bin/bash
# Train the self-supervised encoder: sbatch jobs/train_ssl.sh -c configs/sharp_vector_1024.toml
# More GPUs share the batch: sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 jobs/...
#SBATCH --job-name=sunpipe-ssl
#SBATCH --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8 --time=12:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
trap 'again_after_loss $? ssl "$@"' EXIT
# Not --kill-on-bad-exit: the ranks that are left end by themselves, and say who was lost.
srun --kill-on-bad-exit=0 --wait=120 "${SUNPIPE_INSIDE[@]}" sunpipe ssl "$@"
