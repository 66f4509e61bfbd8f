#!/bin/bash
# Change one quantity of a generated or inverted region by an amount:
#   sbatch jobs/traverse.sh -c configs/sharp_vector_1024.toml --quantity USFLUX --by 1e22Mx
#SBATCH --job-name=sunpipe-traverse
#SBATCH --nodes=1 --ntasks=1 --gpus-per-node=1 --cpus-per-task=8 --time=01:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun "${SUNPIPE_INSIDE[@]}" sunpipe traverse "$@"
