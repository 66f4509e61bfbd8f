"""What this machine offers a Slurm of its own: programs, free ports, a user name."""

from __future__ import annotations

import os
import pwd
import random
import re
import shutil
import socket
import subprocess

from sunpipe.errors import DataError

PACKAGES = "slurmctld slurmd slurm-client munge slurmdbd mariadb-server"
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd",
            "sacctmgr", "scontrol", "sinfo", "squeue", "scancel")  # fmt: skip
SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin:/sbin"


def find_programs() -> dict[str, str]:
    """Paths of all daemons and commands; a `DataError` with the install line if some miss."""
    found = {name: shutil.which(name, path=SEARCH) for name in PROGRAMS}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise DataError(
            f"{', '.join(missing)} not installed; on Debian or Ubuntu: apt-get install {PACKAGES}"
        )
    return {name: path for name, path in found.items() if path is not None}


def free_ports(count: int, low: int = 10000, high: int = 20000) -> tuple[int, ...]:
    """Distinct TCP ports nobody listens on, below the range the kernel hands out itself."""
    held: list[socket.socket] = []
    try:
        for port in random.SystemRandom().sample(range(low, high), high - low):
            if len(held) == count:
                break
            trial = socket.socket()
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                trial.close()
            else:
                held.append(trial)
        if len(held) < count:
            raise DataError(f"no {count} free TCP ports between {low} and {high}")
        return tuple(trial.getsockname()[1] for trial in held)
    finally:
        for trial in held:
            trial.close()


def user_name() -> str:
    """Name of the user who runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        raise DataError(f"user {os.getuid()} has no name in /etc/passwd; Slurm needs one") from None


def slurm_version(slurmctld: str) -> tuple[int, int]:
    """Major and minor version, (0, 0) when it cannot be read."""
    text = subprocess.run([slurmctld, "-V"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def answers(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as trial:
        trial.settimeout(1.0)
        return trial.connect_ex(("127.0.0.1", port)) == 0
