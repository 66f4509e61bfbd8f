# shellcheck shell=bash
# Sourced by every job. What differs between sites comes from the environment:
#   SBATCH_ACCOUNT, SBATCH_PARTITION, SBATCH_GPUS_PER_NODE ...  read by sbatch itself
#   SUNPIPE_MODULES    modules to load, for example "python/3.11 cuda/12.8"
#   SUNPIPE_SETUP      a shell file to source
#   SUNPIPE_INTERFACE  network interface for NCCL and Gloo, for example ib0
#   SUNPIPE_MPI        srun --mpi type of the MPI stage (default pmi2)
#   SUNPIPE_MAX_REQUEUES  restarts of a training that loses a rank and makes no progress (default 3)
set -eo pipefail

if [[ -n "${SUNPIPE_MODULES:-}" ]]; then
    read -ra modules <<<"$SUNPIPE_MODULES"
    module load "${modules[@]}"
fi
if [[ -n "${SUNPIPE_SETUP:-}" ]]; then
    # shellcheck disable=SC1090
    source "$SUNPIPE_SETUP"
fi
if [[ -n "${SUNPIPE_INTERFACE:-}" ]]; then
    export NCCL_SOCKET_IFNAME="$SUNPIPE_INTERFACE" GLOO_SOCKET_IFNAME="$SUNPIPE_INTERFACE"
fi

# sbatch runs a copy of the job from its spool folder; the checkout is where it was submitted.
export PATH="${SLURM_SUBMIT_DIR:-$PWD}/.venv/bin:$PATH"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not take it from sbatch

# After srun ended with exit code $1, and "sunpipe train" had the other arguments: when a rank was
# killed, crashed or was lost (76), not when it was refused, Slurm starts the job again, at most
# SUNPIPE_MAX_REQUEUES (3) times in a row without a newer checkpoint.
again_after_loss() {
    (($1 <= 128 && $1 != 76)) || python -m sunpipe.requeue "$@" || true
}
