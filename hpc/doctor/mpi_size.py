"""How many ranks MPI connects: ``srun -n2 --mpi=TYPE python -m hpc.doctor.mpi_size``."""

from __future__ import annotations

import sys

from preprocess.comm import communicator
from sunpipe.errors import SunpipeError


def main() -> None:
    """Rank 0 prints the number."""
    try:
        ranks = communicator()
    except (SunpipeError, RuntimeError) as error:
        sys.exit(f"sunpipe: {str(error).splitlines()[0]}")
    sizes = ranks.all(lambda: ranks.size)
    if ranks.rank == 0:
        print(sizes[0], flush=True)


if __name__ == "__main__":
    main()
