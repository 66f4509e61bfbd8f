# shellcheck shell=bash
# Sourced by every job. What differs between sites comes from the environment:
#   SBATCH_ACCOUNT, SBATCH_PARTITION, SBATCH_GPUS_PER_NODE ...  read by sbatch itself
#   SUNPIPE_MODULES    modules to load, for example "python/3.11 cuda/12.8"
#   SUNPIPE_SETUP      a shell file to source; only whether its last command fails counts
#   SUNPIPE_CONTAINER  an Apptainer image that holds sunpipe (containers/sunpipe.def)
#   SUNPIPE_INTERFACE  network interface for NCCL and Gloo, for example ib0
#   SUNPIPE_CACHE      a folder on the nodes' own disks, for copies of shards
#   SUNPIPE_MPI        srun --mpi type of the MPI stage (default pmi2)
#   SUNPIPE_MAX_REQUEUES  restarts of a training that loses a rank and makes no progress (default 3)
# For the lines of the job behind this file: within it, since the jobs say `source ... || exit 1`,
# bash ignores -e, and what must not fail is asked by itself.
set -eo pipefail

if [[ -n "${SUNPIPE_MODULES:-}" ]]; then
    # The shell of a batch job has the function only if the one that submitted exported it.
    if ! command -v module >/dev/null; then
        # shellcheck disable=SC1091
        source "${MODULESHOME:?is not set, so there is no module command}/init/bash"
    fi
    read -ra modules <<<"$SUNPIPE_MODULES"
    module load "${modules[@]}" || {
        echo "sunpipe: module load ${modules[*]} (SUNPIPE_MODULES) failed" >&2
        exit 1
    }
fi
if [[ -n "${SUNPIPE_SETUP:-}" ]]; then
    # shellcheck disable=SC1090
    source "$SUNPIPE_SETUP" || {
        echo "sunpipe: $SUNPIPE_SETUP (SUNPIPE_SETUP) ended with exit code $?" >&2
        exit 1
    }
fi
if [[ -n "${SUNPIPE_INTERFACE:-}" ]]; then
    export NCCL_SOCKET_IFNAME="$SUNPIPE_INTERFACE" GLOO_SOCKET_IFNAME="$SUNPIPE_INTERFACE"
fi

# sbatch runs a copy of the job from its spool folder; the checkout is where it was submitted.
export PATH="${SLURM_SUBMIT_DIR:-$PWD}/.venv/bin:$PATH"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}" # srun does not take it from sbatch

# Words before every command: none, or those that enter the container. Apptainer shows it the home
# and the working folder; others are named here or in APPTAINER_BIND.
SUNPIPE_INSIDE=()
if [[ -n "${SUNPIPE_CONTAINER:-}" ]]; then
    SUNPIPE_INSIDE=(apptainer exec)
    [[ -z "${SLURM_GPUS_ON_NODE:-}${SLURM_JOB_GPUS:-}" ]] || SUNPIPE_INSIDE+=(--nv)
    # Apptainer refuses to bind what is not there, on each of the nodes.
    [[ -z "${SUNPIPE_ROOT:-}" ]] || mkdir -p "$SUNPIPE_ROOT"
    if [[ -n "${SUNPIPE_CACHE:-}" ]]; then
        mkdir -p "$SUNPIPE_CACHE"
        ((${SLURM_JOB_NUM_NODES:-1} == 1)) || srun --nodes="$SLURM_JOB_NUM_NODES" \
            --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 mkdir -p "$SUNPIPE_CACHE"
    fi
    for folder in "${SUNPIPE_ROOT:-${SCRATCH:-}}" "${SUNPIPE_CACHE:-}"; do
        [[ ! -d "$folder" ]] || SUNPIPE_INSIDE+=(--bind "$folder")
    done
    SUNPIPE_INSIDE+=("$SUNPIPE_CONTAINER")
    # Slurm's commands are missing inside: what is to be started again leaves this file.
    export SUNPIPE_REQUEUE_FILE="${SUNPIPE_ROOT:-${SCRATCH:-$HOME}}/.sunpipe-again-${SLURM_JOB_ID:-0}"
fi

# Ask Slurm to start this job again if something in the container has left the file that says so.
again_if_asked() {
    if [[ -e "${SUNPIPE_REQUEUE_FILE:-}" ]]; then
        local asked shown
        asked=$(<"$SUNPIPE_REQUEUE_FILE")
        rm -f "$SUNPIPE_REQUEUE_FILE"
        shown=$(SLURM_TIME_FORMAT=standard scontrol --oneliner show job "$SLURM_JOB_ID") || return 0
        [[ "$shown" == *" JobState=RUNNING "* ]] || return 0
        # Whether a SIGTERM was a preemption only Slurm knows.
        [[ "$asked" != preempted || "$shown" == *" PreemptTime="[0-9]* ]] || return 0
        scontrol requeue "$SLURM_JOB_ID"
    fi
}
trap again_if_asked EXIT

# After srun ended with exit code $1, and "sunpipe train" had the other arguments: when a rank was
# killed, crashed or was lost (76), not when it was refused, Slurm starts the job again, at most
# SUNPIPE_MAX_REQUEUES (3) times in a row without a newer checkpoint.
again_after_loss() {
    (($1 <= 128 && $1 != 76)) || "${SUNPIPE_INSIDE[@]}" python -m sunpipe.requeue "$@" || true
    again_if_asked
}
