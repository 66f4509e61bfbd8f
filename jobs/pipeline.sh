#!/bin/bash
# All stages one after the other in one small job: sbatch jobs/pipeline.sh -c configs/demo.toml
# (with a job per stage and dependencies: sunpipe pipeline --cluster FILE)
#SBATCH --job-name=sunpipe-pipeline
#SBATCH --nodes=1 --ntasks=1 --gpus-per-node=1 --cpus-per-task=8 --time=12:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
trap 'again_after_loss $? "$@"' EXIT
srun "${SUNPIPE_INSIDE[@]}" sunpipe pipeline --local "$@"
