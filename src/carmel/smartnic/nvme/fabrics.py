"""NVMe over TCP as the kernel's initiator has it: options of a connection, and what sysfs says of those there are.

A connection is made by writing options to ``/dev/nvme-fabrics`` (drivers/nvme/host/fabrics.c, ``opt_tokens``) and is a
controller below ``/sys/class/nvme`` from then on (drivers/nvme/host/sysfs.c).
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field

from carmel.hardware.sysroot import Sysroot

CLASS = "sys/class/nvme"
DEVICE = "dev/nvme-fabrics"
LIVE = "live"
"""The state in which commands go through (``nvme_sysfs_show_state``)."""
RECONNECT_SECONDS = 2
KEEP_ALIVE_SECONDS = 5
"""How soon a target that went without a word is missed."""

_CONTROLLER = re.compile(r"nvme\d{1,5}", re.ASCII)
_UUID_NQN = re.compile(r"nqn\.2014-08\.org\.nvmexpress:uuid:([0-9a-fA-F-]{36})")


@dataclass(frozen=True, slots=True)
class Target:
    """One way to a subsystem, and who we are to it. Two namespaces of one Target share its connection."""

    address: str
    port: int
    subsystem_nqn: str
    host_nqn: str


@dataclass(frozen=True, slots=True)
class ChapKeys:
    """Secrets of DH-HMAC-CHAP as text (``DHHC-1:...``): ours, and the target's if it is to prove itself."""

    host: str = field(repr=False)
    controller: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """A controller that is reached over TCP. ``stall_seconds`` ``None``: what is asked for waits for ever."""

    name: str
    target: Target
    state: str
    stall_seconds: int | None


def host_nqn(identity: str) -> str:
    """The NQN of a NIC whose machine id (or another thing that stays) is ``identity``: the same after each boot, and
    not the one that tools besides Carmel take, so that connections are known apart."""
    return f"nqn.2014-08.org.nvmexpress:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'carmel.dev/nvme/{identity}')}"


def host_id(nqn: str) -> str:
    """The kernel takes one host id for one host NQN (``nvmf_host_add``); the NQN's own UUID if it has one."""
    found = _UUID_NQN.fullmatch(nqn)
    return found[1].lower() if found else str(uuid.uuid5(uuid.NAMESPACE_OID, nqn))


def connect_options(target: Target, stall_seconds: int, keys: ChapKeys | None = None) -> str:
    """What to write. The controller stays and is reconnected for ever; after ``stall_seconds`` without it what waits
    fails, and so does what comes, until it is back (``fast_io_fail_tmo``)."""
    options = {
        "nqn": target.subsystem_nqn,
        "transport": "tcp",
        "traddr": target.address,
        "trsvcid": target.port,
        "hostnqn": target.host_nqn,
        "hostid": host_id(target.host_nqn),
        "ctrl_loss_tmo": -1,
        "fast_io_fail_tmo": stall_seconds,
        "reconnect_delay": RECONNECT_SECONDS,
        "keep_alive_tmo": KEEP_ALIVE_SECONDS,
    }
    if keys is not None:
        options["dhchap_secret"] = keys.host
        if keys.controller is not None:
            options["dhchap_ctrl_secret"] = keys.controller
    return ",".join(f"{name}={value}" for name, value in options.items())


def read_connections(root: Sysroot) -> tuple[Connection, ...]:
    """Those over TCP, by the kernel's numbers. One that goes while it is looked at is left out."""
    names = sorted(filter(_CONTROLLER.fullmatch, root.names(CLASS)), key=lambda name: int(name[4:]))
    return tuple(found for name in names if (found := _connection(root, name)) is not None)


def _connection(root: Sysroot, name: str) -> Connection | None:
    folder = f"{CLASS}/{name}"
    if root.text(f"{folder}/transport") != "tcp":
        return None
    # traddr=192.0.2.1,trsvcid=4420,src_addr=192.0.2.9
    words = dict(part.partition("=")[::2] for part in (root.text(f"{folder}/address") or "").split(","))
    port, state = words.get("trsvcid", ""), root.word(f"{folder}/state")
    if state is None or not port.isdecimal():
        return None
    stall = root.text(f"{folder}/fast_io_fail_tmo") or ""
    target = Target(
        address=words.get("traddr", ""),
        port=int(port),
        subsystem_nqn=root.word(f"{folder}/subsysnqn") or "",
        host_nqn=root.word(f"{folder}/hostnqn") or "",
    )
    # "off" where nothing ever fails.
    return Connection(name, target, state, int(stall) if stall.isdecimal() else None)
