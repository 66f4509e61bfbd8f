"""A real Slurm on this one machine: munged, MariaDB, slurmdbd, slurmctld, some slurmd.

Everything lives in one folder with ports, sockets, keys and a database of its
own, so it stands beside any other Slurm and leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpc import daemon, slurm_conf
from hpc.daemon import Daemon
from hpc.machine import SEARCH, answers, find_programs, free_ports, slurm_version, user_name
from hpc.slurm_conf import Site
from sunpipe.errors import DataError, UsageError
from sunpipe.files import read_json, write_json, write_text
from sunpipe.stage import log

SCHEMA = 1
STATE = "cluster.json"
SOCKET_ROOM = 40  # bytes that the longest socket name adds to its folder


def _wait(what: str, ready: Callable[[], bool], log_file: Path, started: Daemon, token: str,
          patience: float = 30.0) -> None:  # fmt: skip
    end = time.monotonic() + patience
    while not ready():
        if not daemon.alive(started, token) or time.monotonic() > end:
            tail = log_file.read_text(errors="replace").strip().splitlines()[-3:]
            raise DataError(f"{what} did not come up: {' | '.join(tail) or 'it said nothing'}")
        time.sleep(0.05)


class Cluster:
    """A one-machine Slurm in `folder`, running or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.state: dict[str, Any] = {}
        self.daemons: list[Daemon] = []
        if (self.folder / STATE).exists():
            self.state = read_json(self.folder / STATE)
            if self.state.get("schema") != SCHEMA:
                raise DataError(f"{self.folder / STATE} is of another version of sunpipe")
            self.daemons = [Daemon(**row) for row in self.state["daemons"]]

    @property
    def conf(self) -> Path:
        """``slurm.conf`` for SLURM_CONF."""
        return self.folder / "slurm.conf"

    @property
    def token(self) -> str:
        """What marks this cluster's processes."""
        return self.state.get("token", "")

    def environment(self) -> dict[str, str]:
        """A clean environment for daemons and Slurm commands."""
        kept = {key: os.environ[key] for key in ("HOME", "LANG", "TZ") if key in os.environ}
        return {**kept, "PATH": SEARCH, "SLURM_CONF": str(self.conf)}

    def running(self) -> dict[str, bool]:
        """Whether each recorded daemon lives."""
        return {one.name: daemon.alive(one, self.token) for one in self.daemons}

    def command(self, *argv: str, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
        """Run a Slurm command against this cluster; a `DataError` when it does not answer."""
        try:
            return subprocess.run(argv, env=self.environment(), capture_output=True, text=True,
                                  timeout=timeout, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            name = Path(argv[0]).name
            raise DataError(f"{name} has no answer from Slurm after {timeout:g} s") from None

    def _save(self) -> None:
        self.state["daemons"] = [dataclasses.asdict(one) for one in self.daemons]
        write_json(self.folder / STATE, self.state)

    def _start(self, name: str, *argv: str) -> tuple[Daemon, Path]:
        out = self.folder / "log" / f"{name}.out"
        one = daemon.start(name, list(argv), out, self.environment(), self.token)
        self.daemons.append(one)
        self._save()
        return one, out

    def up(self, nodes: int) -> bool:
        """Start everything; False when it was up already.

        Raises
        ------
        UsageError
            The folder is used by something else or its path does not suit Slurm.
        DataError
            A program is missing or a daemon does not come up.
        """
        if self.daemons:
            if all(self.running().values()):
                return False
            dead = [name for name, lives in self.running().items() if not lives]
            raise UsageError(
                f"the cluster in {self.folder} is half up ({', '.join(dead)} ended); stop it first:"
                f" sunpipe cluster down --folder {self.folder}"
            )
        if not re.fullmatch(r"[A-Za-z0-9_./+@~-]+", str(self.folder)):
            raise UsageError(f"{self.folder}: Slurm cannot read such a path; choose --folder")
        if self.folder.exists() and any(self.folder.iterdir()):
            raise UsageError(f"{self.folder} is not empty and holds no cluster; choose --folder")
        programs = find_programs()
        existed = self.folder.exists()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._up(nodes, programs)
        except BaseException:
            self.down()
            if existed:
                self.folder.mkdir(exist_ok=True)
            raise
        return True

    def _site(self, nodes: int, version: tuple[int, int]) -> Site:
        run = self.folder / "run"
        if len(os.fsencode(run)) + SOCKET_ROOM > 107:
            run = Path(tempfile.mkdtemp(prefix="sunpipe-cluster-"))
        run.mkdir(exist_ok=True)
        name = f"sunpipe{secrets.token_hex(3)}"
        self.state = {"schema": SCHEMA, "name": name, "token": secrets.token_hex(16),
                      "nodes": nodes, "run": str(run), "daemons": []}  # fmt: skip
        self._save()
        return Site(name, self.folder, run, socket.gethostname().split(".")[0], user_name(),
                    nodes, free_ports(3 + nodes), version)  # fmt: skip

    def _write(self, site: Site, password: str) -> None:
        for name in ("log", "state", "gpu"):
            (self.folder / name).mkdir()
        for number in range(slurm_conf.NODE_GPUS):
            (self.folder / "gpu" / f"gpu{number}").touch()
        write_text(self.conf, slurm_conf.slurm_conf(site))
        write_text(self.folder / "gres.conf", slurm_conf.gres_conf(site))
        write_text(self.folder / "cgroup.conf", slurm_conf.cgroup_conf(site))
        for name, text in (
            ("munge.key", secrets.token_hex(64)),
            ("slurmdbd.conf", slurm_conf.slurmdbd_conf(site, password)),
            ("init.sql", slurm_conf.init_sql(password)),
        ):
            path = self.folder / name
            path.touch(mode=0o600)
            path.write_text(text)
        for node in site.node_names:
            (site.run / node).mkdir()

    def _up(self, nodes: int, programs: dict[str, str]) -> None:
        site = self._site(nodes, slurm_version(programs["slurmctld"]))
        password = secrets.token_hex(16)
        self._write(site, password)

        munged, out = self._start(
            "munged", programs["munged"], "--foreground", "--force",
            f"--key-file={self.folder}/munge.key", f"--socket={site.munge_socket}",
            f"--pid-file={site.run}/munged.pid", f"--log-file={self.folder}/log/munged.log",
            f"--seed-file={self.folder}/munged.seed",
        )  # fmt: skip
        _wait("munged", site.munge_socket.exists, out, munged, self.token)

        options = slurm_conf.mariadb_options(site)
        made = self.command(
            programs["mariadb-install-db"], "--no-defaults", "--skip-test-db",
            "--auth-root-authentication-method=normal", *options, timeout=120,
        )  # fmt: skip
        if made.returncode != 0:
            raise DataError(f"mariadb-install-db: {(made.stderr or made.stdout).strip()[-300:]}")
        mariadb, out = self._start(
            "mariadbd", programs["mariadbd"], "--no-defaults", *options, "--bind-address=127.0.0.1",
            f"--port={site.ports[2]}", f"--socket={site.run}/mariadb.socket", "--skip-name-resolve",
            f"--pid-file={site.run}/mariadb.pid", f"--init-file={self.folder}/init.sql",
        )  # fmt: skip
        _wait("mariadbd", lambda: answers(site.ports[2]), out, mariadb, self.token)

        dbd, out = self._start("slurmdbd", programs["slurmdbd"], "-D")
        _wait("slurmdbd", lambda: answers(site.ports[1]), out, dbd, self.token)
        added = self.command(programs["sacctmgr"], "-i", "add", "cluster", site.name)
        if added.returncode != 0:
            raise DataError(f"sacctmgr add cluster: {(added.stderr or added.stdout).strip()}")

        controller, out = self._start("slurmctld", programs["slurmctld"], "-D")
        _wait("slurmctld", lambda: answers(site.ports[0]), out, controller, self.token)
        for node in site.node_names:
            last, out = self._start(f"slurmd-{node}", programs["slurmd"], "-D", "-N", node)
        _wait("slurmd", lambda: self.idle_nodes() == nodes, out, last, self.token)

    def restart(self, name: str) -> None:
        """Stop a daemon of Slurm, if it lives, and start it again: ``slurmctld``, ``slurmd-n1``.

        Jobs stay. What was changed in ``slurm.conf`` holds from then on.

        Raises
        ------
        UsageError
            This cluster has no daemon of Slurm called that.
        DataError
            It does not come up.
        """
        kind, _, node = name.partition("-")
        options = {"slurmctld": ["-D"], "slurmdbd": ["-D"], "slurmd": ["-D", "-N", node]}
        if kind not in options or name not in self.running():
            raise UsageError(f"no daemon called {name!r} in {self.folder} can be started again")
        daemon.stop([one for one in self.daemons if one.name == name], self.token)
        self.daemons = [one for one in self.daemons if one.name != name]
        one, out = self._start(name, find_programs()[kind], *options[kind])
        _wait(name, lambda: self._responds(kind, node), out, one, self.token)

    def _responds(self, kind: str, node: str) -> bool:
        if kind == "slurmd":
            shown = self.command("sinfo", "--noheader", f"--nodes={node}", "--format=%T").stdout
            port = re.search(rf"NodeName={node} .*?Port=(\d+)", self.conf.read_text())
            return port is not None and answers(int(port[1])) and not re.search(r"down|\*", shown)
        asked = {"slurmctld": ("scontrol", "ping"), "slurmdbd": ("sacctmgr", "-n", "show", "stats")}
        done = self.command(*asked[kind])
        return done.returncode == 0 and "DOWN" not in done.stdout

    def idle_nodes(self) -> int:
        """How many nodes wait for work."""
        if not self.running().get("slurmctld"):
            return 0
        done = self.command("sinfo", "--noheader", "--Node", "--format=%T")
        return done.stdout.split().count("idle")

    def down(self) -> bool:
        """Cancel jobs, stop what was started, remove the folder; False when nothing was there."""
        if not self.state:
            return False
        if self.running().get("slurmctld"):
            self._cancel_jobs()
        for group in ("slurmd-", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            daemon.stop([one for one in self.daemons if one.name.startswith(group)], self.token)
        for pid in daemon.leftovers(self.token):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for folder in (Path(self.state["run"]), self.folder):
            shutil.rmtree(folder, ignore_errors=True)
        if self.folder.exists():
            raise DataError(f"stopped, but {self.folder} could not be removed")
        self.state, self.daemons = {}, []
        return True

    def _cancel_jobs(self) -> None:
        def listed() -> list[str]:
            with suppress(DataError):
                return self.command(
                    "squeue", "--noheader", "--format=%i", timeout=10
                ).stdout.split()
            return []

        jobs = listed()
        if not jobs:
            return
        log(f"cancelling {len(jobs)} job(s)")
        with suppress(DataError):
            self.command("scancel", "--signal=KILL", "--full", *jobs, timeout=10)
            self.command("scancel", *jobs, timeout=10)
        end = time.monotonic() + 8.0
        while listed() and time.monotonic() < end:
            time.sleep(0.1)
