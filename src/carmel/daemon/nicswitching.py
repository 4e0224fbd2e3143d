"""What a SmartNIC switches with: the data plane, the firewall before it, and the controllers of networks and ports."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from carmel.controllers.firewall import FirewallController
from carmel.controllers.firewall_ports import NicPorts
from carmel.controllers.nic.counting import PortCounting
from carmel.controllers.nic.facts import NicFacts
from carmel.controllers.nic.networks import NicNetworkController, NicSwitch
from carmel.controllers.nic.ports import NicPortController
from carmel.controllers.nic.self_status import SelfStatus, Switching
from carmel.controllers.runtime import Runtime, Sample
from carmel.daemon.ovswatch import OvsWatch
from carmel.daemon.switches import OpenVSwitch, chosen, forget_others
from carmel.errors import CarmelError
from carmel.network.host.claim import Claim
from carmel.network.ovs.health import Health, Trouble
from carmel.network.ovs.offload import is_on, offload_config
from carmel.paths import Paths
from carmel.resources.smartnic import SwitchKind
from carmel.run import Runner
from carmel.smartnic.models.model import SmartNicModel

_log = logging.getLogger(__name__)


class NicSwitching:
    """``begin`` before the controllers work, ``start`` when they do, ``stop`` when they have ended."""

    def __init__(
        self,
        runtime: Runtime,
        facts: NicFacts,
        model: SmartNicModel,
        itself: SelfStatus,
        paths: Paths,
        runner: Runner,
        kind: SwitchKind,
    ) -> None:
        self._paths, self._runner, self._itself = paths, runner, itself
        self._claim = Claim(paths.networks)
        self._chosen = chosen(kind, paths, runner)
        itself.switching = Switching(kind)
        self._switch = NicSwitch(runtime, self._chosen.plane)
        NicNetworkController(runtime, self._switch)
        self._firewall = FirewallController(runtime, self._chosen.firewall, NicPorts(runtime))
        ports = NicPortController(runtime, facts.name, itself, model, self._switch, self._firewall.prepare)
        self._counting = PortCounting(runtime, ports, self._switch)
        self._begun = False
        self._watch: OvsWatch | None = None
        if (ovs := self._chosen.open_vswitch) is not None:
            self._health = Health(runner, ovs.switch.database, ovs.switch.folder)
            self._watch = OvsWatch(runtime.clock, self._health, self._restore, self._tell)

    async def begin(self) -> None:
        """From the NIC's own store, without the host. What an earlier daemon made goes on as it is. Raises ``Refused``
        where another daemon switches."""
        self._claim.take()
        await forget_others(self._chosen.kind, self._paths, self._runner)
        if self._watch is None:
            await self._switch.begin()
            return
        try:
            await self._restore()
        except CarmelError as error:
            # Open vSwitch may be late. Until then networks say why they are not there.
            _log.warning("Open vSwitch: %s", error)
            self._watch.lost()
            self._tell(Trouble(error.code, error.message))

    def start(self) -> None:
        self._counting.start()
        if self._watch is not None:
            self._watch.start()

    async def stop(self) -> None:
        """Networks and ports stay, and the firewall's rules."""
        if self._watch is not None:
            await self._watch.stop()
        await self._counting.stop()
        await self._chosen.aclose()
        self._claim.release()

    def metrics(self) -> Iterator[Sample]:
        return self._counting.metrics()

    # -- Open vSwitch ---------------------------------------------------------------------------------------------
    async def _restore(self) -> None:
        assert self._chosen.open_vswitch is not None
        await self._offload(self._chosen.open_vswitch)
        if self._begun:
            await self._chosen.open_vswitch.plane.restore()
        else:
            await self._switch.begin()
            self._begun = True
        self._firewall.ports_changed()

    async def _offload(self, ovs: OpenVSwitch) -> None:
        """Where the NIC's ports can: ovs-vswitchd reads it at its start."""
        able = self._itself.shown.hardware_offload
        there = await ovs.switch.database.other_config()
        missing = offload_config(there, able=able)
        if missing:
            await ovs.switch.database.set_other_config(**missing)
            if await self._health.is_ours_to_restart():
                await self._health.restart()
        on = is_on({**there, **missing}, able=able)
        self._itself.switching = replace(self._itself.switching, offloads=on)

    def _tell(self, trouble: Trouble | None) -> None:
        said = None if trouble is None else (trouble.reason, trouble.message)
        self._itself.switching = replace(self._itself.switching, trouble=said)
        self._itself.look_again()
