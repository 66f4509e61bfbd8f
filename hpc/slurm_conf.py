"""The configuration files of the one-machine Slurm, as pure text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NODE_CPUS = 64  # pretended, so that the job templates fit on any machine
NODE_GPUS = 8  # plain files: they schedule like GPUs and compute nothing


@dataclass(frozen=True)
class Site:
    """What the configuration files need to know.

    Attributes
    ----------
    folder : Path
        Configuration, logs, database and state.
    run : Path
        Sockets and spool; short, because a Unix socket path ends at 107 bytes.
    ports : tuple of int
        Controller, accounting daemon, database, then one per node.
    version : tuple of int
        Slurm's major and minor version.
    """

    name: str
    folder: Path
    run: Path
    host: str
    user: str
    nodes: int
    ports: tuple[int, ...]
    version: tuple[int, int]

    @property
    def conf(self) -> Path:
        """``slurm.conf``, the file that SLURM_CONF names."""
        return self.folder / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """Socket of the private munged."""
        return self.run / "munge.socket"

    @property
    def node_names(self) -> tuple[str, ...]:
        """``n1``, ``n2``, ..."""
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))


def slurm_conf(site: Site) -> str:
    """``slurm.conf``: several slurmd on one host, accounting, quick requeue.

    ``cred_expire`` is what a requeued job waits before it may start again
    (slurm.conf(5), AuthInfo); Slurm's default of 120 s is for real networks.
    """
    run, log = site.run, site.folder / "log"
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={site.host} NodeAddr=127.0.0.1 Port={port}"
        f" CPUs={NODE_CPUS} Boards=1 SocketsPerBoard=1 CoresPerSocket={NODE_CPUS} ThreadsPerCore=1"
        f" RealMemory=1000000 Gres=gpu:{NODE_GPUS} State=UNKNOWN"
        for node, port in zip(site.node_names, site.ports[3:], strict=True)
    )
    return f"""\
ClusterName={site.name}
SlurmctldHost={site.host}(127.0.0.1)
SlurmctldPort={site.ports[0]}
SlurmUser={site.user}
SlurmdUser={site.user}
AuthType=auth/munge
AuthInfo=socket={site.munge_socket},cred_expire=5
StateSaveLocation={site.folder}/state
SlurmdSpoolDir={run}/%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/%n.pid
SlurmctldLogFile={log}/slurmctld.log
SlurmdLogFile={log}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
JobRequeue=1
KillWait=5
SlurmdTimeout=60
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={site.ports[1]}
AccountingStoragePass={site.munge_socket}
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def gres_conf(site: Site) -> str:
    """``gres.conf``: pretended GPUs on plain files."""
    nodes = f"n[1-{site.nodes}]"
    return f"NodeName={nodes} Name=gpu File={site.folder}/gpu/gpu[0-{NODE_GPUS - 1}]\n"


def cgroup_conf(site: Site) -> str:
    """``cgroup.conf``: from 23.11 on slurmd wants to be told that there are no cgroups."""
    return "CgroupPlugin=disabled\n" if site.version >= (23, 11) else ""


def slurmdbd_conf(site: Site, password: str) -> str:
    """``slurmdbd.conf``; must belong to the Slurm user with mode 600."""
    return f"""\
AuthType=auth/munge
AuthInfo={site.munge_socket}
DbdHost={site.host}
DbdAddr=127.0.0.1
DbdPort={site.ports[1]}
SlurmUser={site.user}
LogFile={site.folder}/log/slurmdbd.log
PidFile={site.run}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={site.ports[2]}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
"""


def init_sql(password: str) -> str:
    """What MariaDB runs at start: a database of our own, reachable with a password only."""
    return f"""\
CREATE DATABASE IF NOT EXISTS slurm;
CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON slurm.* TO slurm@'127.0.0.1';
"""


def mariadb_options(site: Site) -> list[str]:
    """Options of mariadbd: small, private, quick rather than durable."""
    return [
        f"--datadir={site.folder}/db",
        "--innodb-log-file-size=8M",
        "--innodb-buffer-pool-size=32M",
        "--innodb-flush-method=nosync",
        "--innodb-lock-wait-timeout=900",
        "--innodb-flush-log-at-trx-commit=0",
        "--aria-log-file-size=8388608",
        *(["--user=root"] if site.user == "root" else []),
    ]
