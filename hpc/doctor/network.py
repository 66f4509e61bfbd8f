"""The network interface that NCCL and Gloo are told to use."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

from hpc.doctor.finding import Finding, Level
from hpc.doctor.place import Place

SIOCGIFADDR = 0x8915  # netdevice(7)
PROFILE = "interface in the profile"
VARIABLES = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


def addresses(interface: str) -> list[str] | None:
    """Addresses of an interface of this machine; None where there is no such interface."""
    if interface not in [name for _, name in socket.if_nameindex()]:
        return None
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, SIOCGIFADDR,
                                 struct.pack("256s", interface.encode()[:15]))  # fmt: skip
            found.append(socket.inet_ntoa(answer[20:24]))
        except OSError:
            pass  # it has no IPv4 address; it may have one of IPv6
    table = Path("/proc/net/if_inet6")
    if table.is_file():
        rows = (line.split() for line in table.read_text(encoding="ascii").splitlines())
        found += [str(ipaddress.IPv6Address(int(row[0], 16))) for row in rows
                  if len(row) == 6 and row[5] == interface]  # fmt: skip
    return found


def interfaces() -> list[str]:
    """Names of this machine's interfaces."""
    return [name for _, name in socket.if_nameindex()]


def judge(
    interface: str, found: list[str] | None, known: list[str], login: bool, setting: str = PROFILE
) -> Finding:  # fmt: skip
    """Whether an interface can carry a training.

    Parameters
    ----------
    login : bool
        A login node may lack what compute nodes have.
    setting : str
        What names it.
    """
    level: Level = "WARN" if login else "MISS"
    fix = f"{setting}; there are: {', '.join(known)}"
    if login:
        fix += "; ask the nodes themselves: sunpipe doctor --srun"
    if found is None:
        return Finding("interface", level, f"{interface} is not here", fix)
    if not found:
        return Finding("interface", level, f"{interface} has no address", fix)
    return Finding("interface", "OK", f"{interface} has {', '.join(found[:2])}")


def interface(place: Place) -> list[Finding]:
    """The profile's interface, or those of the variables that Gloo and NCCL read."""
    known = interfaces()
    if place.profile is not None and (name := place.profile.interface):
        return [judge(name, addresses(name), known, place.where != "allocation")]
    found: dict[str, Finding] = {}
    for key in VARIABLES:
        name = place.env.get(key, "")
        if not name or any(one in name for one in "^=,"):  # NCCL's patterns are not looked into
            continue
        if key.startswith("NCCL"):  # it takes what begins so
            name = next((one for one in known if one.startswith(name)), name)
        found.setdefault(name, judge(name, addresses(name), known, place.where == "login",
                                     f"export {key}=NAME, or unset {key}"))  # fmt: skip
    if found:
        return list(found.values())
    return [Finding("interface", "OK", "none is named, so Gloo and NCCL choose one themselves;"
                    f" there are: {', '.join(known)}")]  # fmt: skip
