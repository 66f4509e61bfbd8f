#!/bin/bash
# FITS to HDF5 by MPI ranks: sbatch jobs/shard.sh -c configs/sharp_vector_1024.toml
#SBATCH --job-name=sunpipe-shard
#SBATCH --nodes=2 --ntasks-per-node=8 --cpus-per-task=1 --time=04:00:00
#SBATCH --signal=USR2@300 --requeue --open-mode=append

source "${SLURM_SUBMIT_DIR:-.}/jobs/_env.sh" || exit 1
srun --mpi="${SUNPIPE_MPI:-pmi2}" "${SUNPIPE_INSIDE[@]}" sunpipe shard "$@"
