"""NVIDIA BlueField-2 and BlueField-3 in DPU mode, as their manuals describe them. **Untested on hardware.**

The Arm side owns the e-switch, which devlink has in mode ``switchdev``. Each function of the host has a representor
here: ``p0`` is an uplink, ``pf0hpf`` stands for the host's physical function, ``pf0vf3`` for its fourth virtual one
("Kernel Representors Model" in the BlueField manual; in NIC mode there are none: "Modes of Operation"). ``devlink port
show`` says flavour and numbers of each, by its network interface, and the MAC address of the function, which ``devlink
port function set`` changes (devlink-port(8), the kernel's networking/devlink/devlink-port.rst).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.hardware.sysroot import Sysroot
from carmel.network.host.kernel import Link
from carmel.resources.smartnic import SmartNICMode
from carmel.run import Command, Limits, Runner
from carmel.smartnic.models.model import Flavour, Function, Representor, Shown, own_name, sorted_by_name

_BOARDS = {"bluefield soc": "bluefield-2", "bluefield-3": "bluefield-3"}
"""Beginnings of what the firmware calls the product (``hardware.boards.bluefield`` has the sources)."""
_FLAVOURS = {
    "physical": Flavour.PHYSICAL,
    "pcipf": Flavour.PCI_PF,
    "pcivf": Flavour.PCI_VF,
    "pcisf": Flavour.PCI_SF,
}
_NO_MAC = "00:00:00:00:00:00"
"""A function that nobody gave an address yet: the firmware's own counts (devlink-port.rst, "Port function")."""
_LIMITS = Limits(seconds=20)


@dataclass(frozen=True, slots=True)
class DevlinkPort:
    """``handle``: what devlink calls it, such as ``pci/0000:03:00.0/1``. ``external``: of the host, not of the Arm
    side."""

    handle: str
    netdev: str
    flavour: Flavour
    pf: int | None = None
    number: int | None = None
    external: bool = False
    mac: str | None = None

    @property
    def device(self) -> str:
        return self.handle.rpartition("/")[0]

    @property
    def function(self) -> str | None:
        """The id of the host's function; none for uplinks, and for what belongs to the Arm side."""
        if not self.external or self.pf is None:
            return None
        kinds = {Flavour.PCI_VF: "vf", Flavour.PCI_SF: "sf"}
        return f"pf{self.pf}" if self.flavour is Flavour.PCI_PF else f"pf{self.pf}{kinds[self.flavour]}{self.number}"


class BlueField:
    """``root`` has its firmware's words; devlink and ethtool are asked by ``runner``."""

    sets_macs = True

    def __init__(self, board: str, root: Sysroot, runner: Runner) -> None:
        self.board = board
        self.serial = root.word("sys/class/dmi/id/product_serial") or root.word("sys/class/dmi/id/board_serial")
        self._runner = runner

    async def look(self, links: Mapping[str, Link]) -> Shown:
        ports = read_ports(await self._json("devlink", "-j", "port", "show"))
        modes = {device: await self._eswitch_mode(device) for device in sorted({port.device for port in ports})}
        uplinks = [port.netdev for port in ports if port.flavour is Flavour.PHYSICAL and port.netdev in links]
        offload = bool(uplinks) and all([await self._offloads(name) for name in uplinks])
        return shown_by(ports, modes, links, offload=offload)

    async def set_mac(self, function: str, mac: str) -> None:
        ports = read_ports(await self._json("devlink", "-j", "port", "show"))
        port = next((one for one in ports if one.function == function), None)
        if port is None:
            raise Refused(f"there is no function {function}", code="NoSuchFunction")
        if port.mac == mac:
            return
        try:
            await self._run("devlink", "port", "function", "set", port.handle, "hw_addr", mac)
        except CarmelError as exc:
            raise Refused(
                f"the function {function} does not take the MAC address {mac}: {exc.message}", code="MacNotSettable"
            ) from exc

    async def _eswitch_mode(self, device: str) -> str:
        told = await self._json("devlink", "-j", "dev", "eswitch", "show", device)
        return str(told.get("dev", {}).get(device, {}).get("mode", ""))

    async def _offloads(self, uplink: str) -> bool:
        """ethtool(8), ``-k``."""
        try:
            text = (await self._run("ethtool", "-k", uplink)).decode("utf-8", "replace")
        except CarmelError:
            return False
        return re.search(r"^hw-tc-offload: on\b", text, re.MULTILINE) is not None

    async def _json(self, *argv: str) -> dict[str, Any]:
        try:
            told: dict[str, Any] = orjson.loads(await self._run(*argv) or b"{}")
        except ValueError as exc:
            raise Unavailable(f"{' '.join(argv)} said what is no JSON", code="DevlinkNotUnderstood") from exc
        return told

    async def _run(self, *argv: str) -> bytes:
        return (await self._runner.run(Command(argv, limits=_LIMITS))).stdout


def bluefield_board(root: Sysroot) -> str | None:
    """Which of the two this machine is the Arm cores of, by its firmware's words."""
    vendor = (root.word("sys/class/dmi/id/sys_vendor") or "").lower()
    product = (root.word("sys/class/dmi/id/product_name") or "").lower()
    if "mellanox" not in vendor and "nvidia" not in vendor:
        return None
    return next((board for words, board in _BOARDS.items() if product.startswith(words)), None)


def read_ports(told: Mapping[str, Any]) -> tuple[DevlinkPort, ...]:
    """``devlink -j port show``. What has no network interface, or a flavour that nothing is plugged by, is left out."""
    return tuple(_ports(told.get("port", {})))


def _ports(told: Mapping[str, Any]) -> Iterator[DevlinkPort]:
    for handle, one in told.items():
        flavour = _FLAVOURS.get(str(one.get("flavour")))
        if flavour is None or not one.get("netdev"):
            continue
        mac = (one.get("function") or {}).get("hw_addr")
        yield DevlinkPort(
            handle=handle,
            netdev=one["netdev"],
            flavour=flavour,
            pf=one.get("pfnum"),
            number=one.get("vfnum", one.get("sfnum")),
            external=bool(one.get("external")),
            mac=mac.lower() if isinstance(mac, str) and mac != _NO_MAC else None,
        )


def shown_by(
    ports: tuple[DevlinkPort, ...], modes: Mapping[str, str], links: Mapping[str, Link], *, offload: bool
) -> Shown:
    """Pure. ``modes``: of each device's e-switch."""
    switching = {device for device, mode in modes.items() if mode == "switchdev"}
    if not switching:
        return Shown(mode=SmartNICMode.NIC, problem=_no_switch(modes))
    here = [port for port in ports if port.device in switching and port.netdev in links]
    representors = sorted((_representor(port, links[port.netdev]) for port in here), key=lambda one: one.name)
    functions = (
        Function(port.function, port.mac, own_name(links[port.netdev])) for port in here if port.function is not None
    )
    return Shown(tuple(representors), sorted_by_name(functions), SmartNICMode.DPU, offload)


def _representor(port: DevlinkPort, link: Link) -> Representor:
    return Representor(own_name(link), link.name, port.flavour, port.function, link.up)


def _no_switch(modes: Mapping[str, str]) -> str:
    if not modes:
        return (
            "devlink shows no port of this NIC: it is in NIC mode, where its Arm cores switch nothing. Have it in DPU "
            "mode (mlxconfig, INTERNAL_CPU_MODEL=1) and reset it."
        )
    said = ", ".join(f"{device} is in mode {mode or 'unknown'}" for device, mode in sorted(modes.items()))
    return f"The e-switch does not show representors: {said}. Set it: devlink dev eswitch set DEVICE mode switchdev."
