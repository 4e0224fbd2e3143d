"""The switches that a SmartNIC can have: a data plane with the firewall that goes before it."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass

from carmel.errors import CarmelError
from carmel.network.dataplane import DataPlane
from carmel.network.firewall import FirewallDataPlane, NftFirewall
from carmel.network.firewall.nft_tables import NftTables
from carmel.network.firewall.nft_watch import NftWatch
from carmel.network.host.hostdataplane import HostDataPlane
from carmel.network.ovs.dataplane import OvsDataPlane
from carmel.network.ovs.firewall import OvsFirewall
from carmel.network.ovs.switch import Switch, run_folder
from carmel.paths import Paths
from carmel.resources.smartnic import SwitchKind
from carmel.run import Runner

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chosen:
    """``open_vswitch`` is there if that is what it is."""

    kind: SwitchKind
    plane: DataPlane
    firewall: FirewallDataPlane
    open_vswitch: OpenVSwitch | None = None
    watch: NftWatch | None = None

    async def aclose(self) -> None:
        """Let go of what was opened. Networks, ports and rules stay."""
        if isinstance(self.firewall, NftFirewall):
            self.firewall.close()
        await self.plane.aclose()
        if self.watch is not None:
            self.watch.close()


@dataclass(frozen=True, slots=True)
class OpenVSwitch:
    switch: Switch
    plane: OvsDataPlane


def chosen(kind: SwitchKind, paths: Paths, runner: Runner) -> Chosen:
    """Nothing is touched before it is used."""
    folders = paths.network_runtime, paths.networks
    if kind is SwitchKind.LINUX_BRIDGE:
        watch = NftWatch()
        plane, firewall = HostDataPlane(runner, *folders, watch=watch), NftFirewall(NftTables(watch=watch))
        return Chosen(kind, plane, firewall, watch=watch)
    switch = Switch(runner, run_folder(os.environ))
    plane = OvsDataPlane(runner, *folders, switch)
    return Chosen(kind, plane, OvsFirewall(switch), OpenVSwitch(switch, plane))


async def forget_others(kind: SwitchKind, paths: Paths, runner: Runner) -> None:
    """Take away what another switch, which was chosen before, left. Then ``kind`` is noted as the one that is used."""
    note = paths.networks / "switch"
    before = None
    with contextlib.suppress(OSError, ValueError):
        before = SwitchKind(note.read_text().strip())
    if before is kind:
        return
    if before is not None:
        old = chosen(before, paths, runner)
        try:
            await old.plane.adopt([], [])
            if before is SwitchKind.LINUX_BRIDGE:
                # Open vSwitch's rules went with its bridge.
                await old.firewall.remove()
        except CarmelError as error:
            _log.warning("what %s has made is still there: %s", before.value, error)
            return
        finally:
            await old.aclose()
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{kind.value}\n")
