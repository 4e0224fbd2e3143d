"""One daemon's part that matters to VMs, on a real store and a hypervisor in memory, and a world that outlives it."""

from __future__ import annotations

import asyncio
import fcntl
import random
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from carmel.controllers.host import HostController, HypervisorFacts
from carmel.controllers.host_facts import HostFacts
from carmel.controllers.network.controller import NetworkController
from carmel.controllers.network.hostnetworks import HostNetworks
from carmel.controllers.network.ports import PortController
from carmel.controllers.network.tapnics import TapNics
from carmel.controllers.placement import (
    Machine,
    Means,
    Mover,
    Places,
    Rebalancer,
    Surveyor,
    plain_hardware,
)
from carmel.controllers.runtime import Key, Runtime, find_condition
from carmel.controllers.virtualmachine import (
    Dependencies,
    HostLimits,
    LaunchedSpecs,
    VirtualMachineController,
    ports,
)
from carmel.controllers.virtualmachine.nics import NicSources
from carmel.errors import CarmelError, Refused
from carmel.hardware.model import Hardware
from carmel.hypervisor.config import NicConfig
from carmel.network.backends import Backend, Backends
from carmel.resources.base import ObjectMeta
from carmel.resources.host import HOST, HostSystem, HypervisorInfo
from carmel.resources.host import Host as HostResource
from carmel.resources.image import Image
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT, Port
from carmel.resources.virtualmachine import (
    VIRTUAL_MACHINE,
    NetworkInterfaceStatus,
    PowerState,
    VirtualMachine,
    VirtualMachineSpec,
)
from carmel.resources.volume import VOLUME, Volume, VolumePhase
from carmel.run import SystemRunner
from carmel.store.protocol import EventType
from carmel.store.sqlite import SqliteStore
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataPlane
from tests.fakes.hostnetworks import host_networks
from tests.fakes.hypervisor import FakeHypervisor, FakeMachine, World
from tests.fakes.quiet import quiet

KEY = Key("default", "w")
PLAIN = plain_hardware("aarch64", 4096, 4, 2**40)
FACTS = HostFacts("host", HostSystem(architecture="aarch64", boot_id="boot"), 4, 2**40, None)


class FakeDisks:
    async def volume(self, volume: Volume, vm: str) -> Path:
        return Path("/volumes") / f"{volume.metadata.uid}.qcow2"

    async def kernel(self, image: Image) -> ports.KernelFiles:
        raise Refused("no kernels here")


class FakeNics:
    """A descriptor for each NIC. ``given``: who has some; ``opened``: every descriptor there was."""

    def __init__(self) -> None:
        self.given: set[str] = set()
        self.opened: list[int] = []

    @property
    def open(self) -> list[int]:
        return [one for one in self.opened if Path(f"/proc/self/fd/{one}").exists()]

    async def plan(self, vm: ports.VmOfNics, wanted: Sequence[ports.WantedNic]) -> Sequence[ports.NicPlan]:
        self.given.add(vm.uid)
        return [self._plan(one) for one in wanted]

    def _plan(self, wanted: ports.WantedNic) -> ports.NicPlan:
        # High up, where nothing else opened meanwhile gets the number of one that was closed.
        descriptor = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 700 + len(self.opened))
        self.opened.append(descriptor)
        name = wanted.nic.name
        status = NetworkInterfaceStatus(name=name, network_name=wanted.network.metadata.name, mac="m")
        return ports.NicPlan(NicConfig(name, "m", {"type": "none"}, descriptors=(descriptor,)), status)

    async def release(self, uid: str, keep: Collection[str] = ()) -> None:
        if not keep:
            self.given.discard(uid)


class NoSeeds:
    async def write(self, seed: ports.Seed, destination: Path) -> None:
        await asyncio.to_thread(destination.write_bytes, b"seed")


class Host:
    """One daemon's part that matters here, on a world that outlives it."""

    def __init__(
        self,
        store: SqliteStore,
        world: World,
        clock: FakeClock,
        hardware: Hardware = PLAIN,
        plane: FakeDataPlane | None = None,
        functions: Callable[[Runtime], ports.NicSource] | None = None,
    ) -> None:
        self.plane = plane
        self.functions = functions
        """Makes the source of NICs that are functions of a SmartNIC."""
        self.lost: Callable[[], Collection[str]] = tuple
        """Names of NICs whose way out is gone."""
        self.gate: CarmelError | None = None
        """What the firewall says of the next VM whose ports are to be plugged."""
        self.store, self.world, self.clock = store, world, clock
        self.hardware: Hardware | Exception = hardware
        self.means = Means()
        self._open()

    def _open(self) -> None:
        self.runtime = Runtime(self.store, "host", clock=self.clock, rng=random.Random(1))
        self.hypervisor = FakeHypervisor(self.world)
        self.nics = FakeNics()
        self.networks: HostNetworks | None = None
        self.vms = self.runtime.resources(VIRTUAL_MACHINE, VirtualMachine)
        self.volumes = self.runtime.resources(VOLUME, Volume)
        self.hosts = self.runtime.resources(HOST, HostResource)
        surveyor = Surveyor(Machine(self._read, lambda: self.means, PLAIN), self.clock)
        self.ledger = surveyor.ledger
        self.host_controller = HostController(self.runtime, FACTS, self._ask, list, surveyor)
        self.ports = self.runtime.resources(PORT, Port)
        launched = LaunchedSpecs(self.world.paths)
        mover = Mover(self.ledger, self.hypervisor, launched)
        Rebalancer(self.runtime, self.ledger, mover)
        self.controller = VirtualMachineController(
            self.runtime,
            Dependencies(
                hypervisor=self.hypervisor,
                disks=FakeDisks(),
                nics=self.nics if self.plane is None else NicSources(self._sources(self.plane)),
                seeds=NoSeeds(),
                paths=self.world.paths,
                boot_id="boot",
                launched=launched,
                places=Places(self.ledger, mover, self.hypervisor),
                limits=lambda: HostLimits(512, 2**40),
                lost_nics=self._lost_nics,
            ),
        )

    def _sources(self, plane: FakeDataPlane) -> list[ports.NicSource]:
        functions = [self.functions(self.runtime)] if self.functions is not None else []
        return [self._taps(plane), *functions]

    def _taps(self, plane: FakeDataPlane) -> TapNics:
        self.networks = host_networks(self.runtime, plane)
        NetworkController(self.runtime, Backends(SystemRunner(), forced=Backend.SLIRP), self.networks)
        ports = PortController(self.runtime, self.networks)
        return TapNics(self.runtime, self.networks, self._admit, ports.look)

    async def _lost_nics(self, _uid: str, nics: Sequence[NetworkInterfaceStatus]) -> Collection[str]:
        lost = self.lost()
        return [one.name for one in nics if one.name in lost]

    async def _admit(self, vm: VirtualMachine) -> None:
        if self.gate is not None:
            raise self.gate

    def _read(self) -> Hardware:
        if isinstance(self.hardware, Exception):
            raise self.hardware
        return self.hardware

    async def _ask(self) -> HypervisorFacts:
        return HypervisorFacts(HypervisorInfo(accelerator="tcg"), 512)

    async def start(self) -> None:
        await self.hypervisor.adopt()
        await self.host_controller.ensure()
        await self.host_controller.learn()
        await self.controller.restore_places()
        if self.networks is not None:
            await self.networks.begin()
        await self.runtime.start()
        await self.controller.start()

    async def stop(self) -> None:
        await self.controller.stop()
        await self.runtime.stop(1)
        await self.hypervisor.close()

    async def restart(self) -> None:
        await self.stop()
        self._open()
        await self.start()

    async def quiet(self) -> None:
        await quiet(self.runtime, self.store)

    async def create(self, name: str = "w", **spec: Any) -> VirtualMachine:
        return await self.vms.create(
            VirtualMachine(
                metadata=ObjectMeta(name=name, namespace="default"), spec=VirtualMachineSpec.model_validate(spec)
            )
        )

    async def make_network(self, name: str = "default") -> None:
        """One of provider user."""
        await self.store.create(NETWORK, {"metadata": {"name": name}})

    async def set(self, name: str = "w", **spec: Any) -> None:
        def change(one: VirtualMachine) -> None:
            one.spec = VirtualMachineSpec.model_validate({**one.spec.model_dump(by_alias=True), **spec})

        await self.vms.update(await self.vms.get(Key("default", name)), change)

    async def until(self, holds: Callable[[VirtualMachine], bool], key: Key = KEY) -> VirtualMachine:
        """The VM, once it is so. Other tasks run meanwhile; time does not pass."""
        async with asyncio.timeout(5), self.store.watch(VIRTUAL_MACHINE, send_initial=True) as events:
            async for event in events:
                if event.object is not None and event.object.name == key.name:
                    found = self.vms.parse(event.object)
                    if event.type is not EventType.DELETED and holds(found):
                        return found
        raise AssertionError("the watch ended")

    async def until_gone(self, key: Key = KEY) -> None:
        async with asyncio.timeout(5), self.store.watch(VIRTUAL_MACHINE) as events:
            if await self.vms.find(key) is None:
                return
            async for event in events:
                if event.type is EventType.DELETED:
                    return

    async def ready_volume(self, name: str) -> Volume:
        """What the controller of volumes would do."""

        def ready(one: Volume) -> None:
            one.status.phase = VolumePhase.READY

        async with asyncio.timeout(5), self.store.watch(VOLUME, send_initial=True) as events:
            async for event in events:
                if event.object is not None and event.object.name == name:
                    return await self.volumes.update_status(self.volumes.parse(event.object), ready)
        raise AssertionError("the watch ended")

    @property
    def machine(self) -> FakeMachine:
        (machine,) = self.world.machines.values()
        return machine


def power(state: PowerState) -> Callable[[VirtualMachine], bool]:
    return lambda vm: vm.status.power_state is state


def reason(wanted: str) -> Callable[[VirtualMachine], bool]:
    def holds(vm: VirtualMachine) -> bool:
        found = find_condition(vm.status, "Ready")
        return found is not None and found.reason == wanted

    return holds


def message(vm: VirtualMachine) -> str:
    found = find_condition(vm.status, "Ready")
    assert found is not None
    return found.message
