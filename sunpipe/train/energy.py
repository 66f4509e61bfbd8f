"""Energy that a training uses, where the devices count it: GPUs by NVML, processors by RAPL.

Sources: ``nvmlDeviceGetTotalEnergyConsumption`` of the NVML reference (millijoules
since the driver was loaded, Volta and newer), and the Linux power capping framework
(Documentation/power/powercap), whose ``energy_uj`` goes back to 0 after
``max_energy_range_uj``. RAPL counts a whole socket, whoever uses it. A device that
several ranks share is read by one of them.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sunpipe.dist import Ranks
from sunpipe.train.process_group import gather_objects

POWERCAP = Path("/sys/class/powercap")
BOOT = Path("/proc/sys/kernel/random/boot_id")  # one machine has one, whatever its nodes are called


@dataclass
class Meter:
    """One counter of energy.

    Attributes
    ----------
    key : str
        The device, the same for all ranks that can see it.
    read : callable
        Joules now; may raise OSError.
    span : float
        Joules after which it starts again at 0, infinite if it does not.
    last : float
        The reading before.
    """

    key: str
    read: Callable[[], float]
    span: float
    last: float

    def used(self) -> float:
        """Joules since the call before; more than one turn of the counter is not seen."""
        value = self.read()
        step, self.last = value - self.last, value
        if step >= 0:
            return step
        # A counter without a span that goes back was reset with its driver.
        return step + self.span if self.span < float("inf") else value


def rapl_meters(folder: Path = POWERCAP, machine: str = "") -> list[Meter]:
    """Sockets and the memory beside them, as far as this user may read them.

    Of the zones, ``package-N`` and ``dram`` count; cores lie inside a package, and
    ``psys`` counts all of them once more.
    """
    meters = []
    for zone in sorted(folder.glob("intel-rapl:*")):
        with suppress(OSError, ValueError):  # since Linux 5.10 often for root alone
            if (zone / "name").read_text().strip().split("-")[0] not in ("package", "dram"):
                continue
            span = int((zone / "max_energy_range_uj").read_text()) / 1e6
            counter = zone / "energy_uj"

            def read(counter: Path = counter) -> float:
                return int(counter.read_text()) / 1e6

            meters.append(Meter(f"{machine}/{zone.name}", read, span, read()))
    return meters


def nvml_meters(uuid: str, library: Any = None) -> list[Meter]:
    """The GPU with this UUID; none where NVML is missing or the GPU does not count.

    Parameters
    ----------
    uuid : str
        ``GPU-...`` or ``MIG-...``.
    library : object, optional
        In place of ``libnvidia-ml.so.1``.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1") if library is None else library
    except OSError:
        return []
    handle, total = ctypes.c_void_p(), ctypes.c_ulonglong()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
        return []

    def read() -> float:
        if code := nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(total)):
            raise OSError(code, "NVML does not tell the energy", uuid)
        return total.value / 1e3

    try:
        return [Meter(uuid, read, float("inf"), read())]
    except OSError:
        return []


def meters_here(device: torch.device) -> list[Meter]:
    """All counters that this process can read for its device and its machine."""
    machine = BOOT.read_text().strip() if BOOT.exists() else ""
    found = rapl_meters(machine=machine)
    if device.type == "cuda":
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        found += nvml_meters(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
    return found


def share(seen: Sequence[Sequence[str]], rank: int) -> set[str]:
    """Of the devices that each rank sees, those that `rank` reads: the lowest that sees one."""
    earlier = {key for keys in seen[:rank] for key in keys}
    return set(seen[rank]) - earlier


class Energy:
    """Energy of the devices of this rank, of which each is read by one rank only.

    Making one is collective; `used` is not.
    """

    def __init__(self, meters: Sequence[Meter], ranks: Ranks) -> None:
        seen = gather_objects([meter.key for meter in meters], ranks)
        mine = share(seen, ranks.rank)
        self.meters = [meter for meter in meters if meter.key in mine]
        self.silent = False

    def used(self) -> float | None:
        """Joules since the call before; None without a device, infinite once one is silent.

        A sum without that one would mislead, so that it spoils the sum over all ranks.
        """
        try:
            found = [meter.used() for meter in self.meters]
        except (OSError, ValueError):
            self.silent = True
        if self.silent:
            return math.inf
        return sum(found) if found else None
