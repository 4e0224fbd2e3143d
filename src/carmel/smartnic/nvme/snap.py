"""BlueField's SNAP: what it is asked for a namespace to be shown by a function (pure).

Written to NVIDIA's manual, "SNAP-4 Service RPC Commands" (methods ``emulation_function_list``, ``nvme_subsystem_*``,
``nvme_namespace_*``, ``nvme_controller_*``), and SPDK's, "JSON-RPC" (``bdev_*``). It was never run on a BlueField.

Each namespace has a subsystem, and so a controller, of its own: SNAP does not share a namespace between controllers,
and the serial number, by which the host finds a function, is the subsystem's. Everything is named by the uid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carmel.paths import short_hash
from carmel.smartnic.nvme.functions import Limits, Show

NAMESPACE_ID = 1
MODEL = "Carmel"
_NQN = "nqn.2026-11.dev.carmel:"
_BDEV = "carmel-"
_MIB = 1024 * 1024
_NVME = "NVME"


@dataclass(frozen=True, slots=True)
class Request:
    """One call of JSON-RPC."""

    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SnapFunction:
    """An emulated NVMe function. ``pci_address`` is the host's; ``controller`` what drives it now."""

    id: str
    pci_address: str
    controller: str | None = None


@dataclass(frozen=True, slots=True)
class SnapShown:
    """A namespace of ours as SNAP has it, as far as it got. ``function`` is the subsystem's serial number;
    ``attached``: the controller has the namespace. Whether it runs is not told."""

    nqn: str
    function: str
    bdev: str | None = None
    controller: str | None = None
    attached: bool = False


def nqn_of(uid: str) -> str:
    return f"{_NQN}{uid}"


def bdev_of(uid: str) -> str:
    return f"{_BDEV}{short_hash(uid)}"


def functions_of(answer: object) -> tuple[SnapFunction, ...]:
    """From ``emulation_function_list`` with ``all``: PFs, and their VFs. ``pf0nvme0`` is the PF itself, the next its
    first VF."""
    found = []
    for physical in answer if isinstance(answer, list) else ():
        if physical.get("emulation_type") != _NVME:
            continue
        index = physical.get("pf_index", 0)
        for number, one in enumerate([physical, *(physical.get("vfs") or [])]):
            if (address := one.get("pci_bdf")) is not None:
                found.append(SnapFunction(f"pf{index}nvme{number}", _with_domain(str(address)), one.get("ctrl_id")))
    return tuple(found)


def shown_of(answer: object) -> dict[str, SnapShown]:
    """By uid, from ``nvme_subsystem_list``: subsystems that are ours."""
    found = {}
    for subsystem in answer if isinstance(answer, list) else ():
        nqn = str(subsystem.get("nqn", ""))
        if not nqn.startswith(_NQN):
            continue
        spaces = subsystem.get("namespaces") or []
        controllers = [one for one in subsystem.get("controllers") or [] if isinstance(one, dict)]
        found[nqn.removeprefix(_NQN)] = SnapShown(
            nqn,
            str(subsystem.get("sn", "")).strip(),
            str(spaces[0]["bdev"]) if spaces else None,
            str(controllers[0]["ctrl_id"]) if controllers else None,
            bool(spaces and spaces[0].get("controllers")),
        )
    return found


def requests_to_show(what: Show, function: SnapFunction, bdevs: Mapping[str, str]) -> list[Request]:
    """From nothing to a controller that is suspended; its id is in the last one's answer. ``bdevs``: name to file of
    those there are."""
    name, nqn = bdev_of(what.uid), nqn_of(what.uid)
    made = []
    if name not in bdevs:
        backing = {"name": name, "filename": str(what.device), "block_size": what.block_bytes}
        made.append(Request("bdev_aio_create", backing))
    return [
        *made,
        limit_request(what),
        Request("nvme_subsystem_create", {"nqn": nqn, "serial_number": function.id, "model_number": MODEL}),
        Request("nvme_namespace_create", {"nqn": nqn, "bdev_name": name, "nsid": NAMESPACE_ID}),
        Request(
            "nvme_controller_create", {"nqn": nqn, "pci_bdf": _without_domain(function.pci_address), "suspended": True}
        ),
    ]


def requests_to_start(controller: str) -> list[Request]:
    """The controller has its namespace before the host's driver sees it."""
    return [
        Request("nvme_controller_attach_ns", {"ctrl_id": controller, "nsid": NAMESPACE_ID}),
        Request("nvme_controller_resume", {"ctrl_id": controller}),
    ]


def requests_to_hide(uid: str, shown: SnapShown | None, bdevs: Mapping[str, str]) -> list[Request]:
    """Whatever there is of it, from the host's side down."""
    requests = []
    if shown is not None:
        if shown.controller is not None:
            if shown.bdev is not None:
                detach = {"ctrl_id": shown.controller, "nsid": NAMESPACE_ID}
                requests.append(Request("nvme_controller_detach_ns", detach))
            requests.append(Request("nvme_controller_destroy", {"ctrl_id": shown.controller}))
        if shown.bdev is not None:
            requests.append(Request("nvme_namespace_destroy", {"nqn": shown.nqn, "nsid": NAMESPACE_ID}))
        requests.append(Request("nvme_subsystem_destroy", {"nqn": shown.nqn}))
    if bdev_of(uid) in bdevs:
        requests.append(Request("bdev_aio_delete", {"name": bdev_of(uid)}))
    return requests


def limit_request(what: Show) -> Request:
    """SPDK limits in MiB/s, and takes 0 for no limit: what is less than one is one."""
    limits: Limits = what.limits
    return Request(
        "bdev_set_qos_limit",
        {
            "name": bdev_of(what.uid),
            "rw_ios_per_sec": limits.iops or 0,
            "r_mbytes_per_sec": _mebibytes(limits.read_bytes),
            "w_mbytes_per_sec": _mebibytes(limits.write_bytes),
        },
    )


def bdevs_of(answer: object) -> dict[str, str]:
    """Ours, from ``bdev_get_bdevs``: name to file."""
    return {
        str(one["name"]): str(((one.get("driver_specific") or {}).get("aio") or {}).get("filename", ""))
        for one in (answer if isinstance(answer, list) else ())
        if str(one.get("name", "")).startswith(_BDEV)
    }


def _mebibytes(rate: int | None) -> int:
    return 0 if rate is None else max(1, rate // _MIB)


def _with_domain(address: str) -> str:
    """SNAP tells ``84:00.2``, the kernel ``0000:84:00.2``."""
    return address if address.count(":") == 2 else f"0000:{address}"


def _without_domain(address: str) -> str:
    return address.removeprefix("0000:")
