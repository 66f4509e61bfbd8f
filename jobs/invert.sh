#!/bin/bash
# The latent that makes an observed patch:
#   sbatch jobs/invert.sh -c configs/sharp_vector_1024.toml --record 'hmi.sharp_cea_720s[377][...]'
#SBATCH --job-name=sunpipe-invert
#SBATCH --nodes=1 --ntasks=1 --gpus-per-node=1 --cpus-per-task=8 --time=02:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe invert "$@"
