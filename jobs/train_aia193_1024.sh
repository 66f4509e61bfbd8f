#!/bin/bash
# StyleGAN2 on AIA 193 full disks at 1024 x 1024, one task per GPU. A later -c or --set wins:
# sbatch jobs/train_aia193_1024.sh --set train.kimg=5000
#SBATCH --job-name=sunpipe-train
#SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --cpus-per-task=8 --time=24:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
trap 'again_after_loss $? -c configs/aia193_1024.toml "$@"' EXIT
# Not --kill-on-bad-exit: the ranks that are left end by themselves, and say who was lost.
srun --kill-on-bad-exit=0 --wait=120 "${SUNPIPE_INSIDE[@]}" sunpipe train -c configs/aia193_1024.toml "$@"
