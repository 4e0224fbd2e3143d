"""Looks at everything that concerns one VM. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from carmel.controllers.placement import Places, PlaceView
from carmel.controllers.placement.places import Suspended
from carmel.controllers.runtime import Clock, Key, Resources, error_message
from carmel.controllers.virtualmachine.guests import Guests
from carmel.controllers.virtualmachine.launched import LaunchedSpecs
from carmel.controllers.virtualmachine.machineports import as_plugged, has_port, is_made_for, port_name, wanted_spec
from carmel.controllers.virtualmachine.observed import (
    ButtonPress,
    DiskView,
    HostLimits,
    HostView,
    Launched,
    MachineView,
    NicView,
    Observed,
    PlugRefusal,
    PortView,
)
from carmel.controllers.virtualmachine.ports import LostNics, none_lost
from carmel.controllers.virtualmachine.volumes import volume_name
from carmel.errors import CarmelError
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.machine import Hypervisor, Machine, MachineState
from carmel.paths import Paths
from carmel.resources.base import SecretKeyReference
from carmel.resources.core import Secret
from carmel.resources.host import Host
from carmel.resources.image import Image
from carmel.resources.network import Network, NetworkProvider
from carmel.resources.port import Port
from carmel.resources.virtualmachine import Disk, NetworkInterface, VirtualMachine
from carmel.resources.volume import Volume

TRY_AGAIN_SECONDS = 60.0
"""After the guest did not let go of a NIC or disk, or one could not be plugged for a reason that may pass."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Where observations come from."""

    vms: Resources[VirtualMachine]
    volumes: Resources[Volume]
    images: Resources[Image]
    networks: Resources[Network]
    secrets: Resources[Secret]
    hosts: Resources[Host]
    ports: Resources[Port]
    ports_of: Callable[[str], Sequence[Key]]
    """The Ports that say that a VM of this uid is theirs."""


@dataclass(slots=True)
class _Run:
    """What is remembered of one launch while it lasts."""

    launch_id: str
    pressed: ButtonPress | None = None
    blockers: tuple[str, ...] | None = None
    resumed: float | None = None
    refused: dict[tuple[DeviceKind, str], _Refused] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Refused:
    """A plug. ``wish``: as it was wanted; ``None``: it was to go. ``until``: on the monotonic clock."""

    wish: NetworkInterface | Disk | None
    message: str
    until: float | None


@dataclass(slots=True)
class Observer:
    """Makes an ``Observed``. ``limits`` is asked each time: what the host can do may be learnt late."""

    reader: Reader
    hypervisor: Hypervisor
    paths: Paths
    clock: Clock
    guests: Guests
    launched: LaunchedSpecs
    places: Places
    host_name: str
    boot_id: str
    limits: Callable[[], HostLimits]
    lost_nics: LostNics = none_lost
    _runs: dict[str, _Run] = field(default_factory=dict)

    async def observe(self, vm: VirtualMachine) -> Observed:
        uid = vm.metadata.uid or ""
        machine = self.hypervisor.machine(uid)
        view = await self._machine(machine) if machine is not None else None
        launched = await self.launched.get(uid)
        saved = self.paths.machine(uid).saved_state.exists()
        # What it was started with is what it is plugged into.
        plugged = launched if machine is not None or saved else None
        lost = await self.lost_nics(uid, launched.networks) if machine is not None and launched is not None else ()
        return Observed(
            vm=vm,
            host=await self._host(),
            now=self.clock.now(),
            monotonic=self.clock.monotonic(),
            machine=view,
            launched=launched,
            place=self._place(vm, machine, launched if saved else None),
            saved=saved,
            pressed=self._run(machine).pressed if machine is not None else None,
            resumed=self._run(machine).resumed if machine is not None else None,
            disks=tuple([await self._disk(vm, disk) for disk in vm.spec.disks]),
            nics=tuple([await self._nic(vm, nic, plugged, lost) for nic in vm.spec.networks]),
            plug_refusals=self._plug_refusals(vm, machine),
            kernel_image=await self._kernel_image(vm),
            missing_secrets=tuple(await self._missing_secrets(vm)),
            former_volumes=_former_volumes(vm),
            former_ports=self._former_ports(vm, plugged),
        )

    def button_pressed(self, machine: Machine) -> None:
        """Remember that the power button was pressed just now."""
        run, now = self._run(machine), self.clock.monotonic()
        run.pressed = ButtonPress(run.pressed.first if run.pressed is not None else now, now)

    def resumed(self, machine: Machine) -> None:
        """Remember that the VM was let run just now."""
        self._run(machine).resumed = self.clock.monotonic()

    def paused(self, machine: Machine) -> None:
        """Remember that it stands still because it is to."""
        self._run(machine).resumed = None

    def plug_refused(
        self, vm: VirtualMachine, machine: Machine, kind: DeviceKind, name: str, error: CarmelError
    ) -> None:
        """Remember that a NIC or disk did not come as ``vm`` wishes, or go."""
        until = self.clock.monotonic() + TRY_AGAIN_SECONDS if error.retryable else None
        self._run(machine).refused[kind, name] = _Refused(wish_of(vm, kind, name), error_message(error), until)

    def try_again(self, uid: str) -> None:
        """What stood against a plug, and may pass, may have passed."""
        if (run := self._runs.get(uid)) is not None:
            run.refused = {what: one for what, one in run.refused.items() if one.until is None}

    def devices_changed(self, machine: Machine) -> None:
        """One came or went: others may have room, and what hinders a migration may be another."""
        run = self._run(machine)
        run.refused.clear()
        run.blockers = None

    def forget(self, uid: str) -> None:
        self._runs.pop(uid, None)
        self.guests.forget(uid)

    def _run(self, machine: Machine) -> _Run:
        launch = machine.launch
        run = self._runs.get(launch.uid)
        if run is None or run.launch_id != launch.launch_id:
            run = self._runs[launch.uid] = _Run(launch.launch_id)
        return run

    async def _machine(self, machine: Machine) -> MachineView:
        if machine.state not in {MachineState.RUNNING, MachineState.PAUSED}:
            return MachineView(machine.launch, machine.state)
        run = self._run(machine)
        if run.blockers is None:
            try:
                run.blockers = tuple(await machine.migration_blockers())
            except CarmelError:
                # It may have come to its end just now; whoever asks next finds that out.
                return MachineView(machine.launch, machine.state)
        return MachineView(
            launch=machine.launch,
            state=machine.state,
            migration_blockers=run.blockers,
            guest=self.guests.view(machine),
            nics=tuple(machine.nics),
            disks=tuple(machine.disks),
        )

    def _place(self, vm: VirtualMachine, machine: Machine | None, suspended: Launched | None) -> PlaceView:
        if suspended is None:
            return self.places.view(vm, machine, None)
        before = suspended.place.placement if suspended.place is not None else None
        return self.places.view(vm, machine, Suspended(suspended.spec, before))

    async def _host(self) -> HostView:
        host = await self.reader.hosts.find(Key(None, self.host_name))
        unschedulable = host is not None and host.spec.unschedulable
        return HostView(self.host_name, self.boot_id, unschedulable, self.limits())

    async def _disk(self, vm: VirtualMachine, disk: Disk) -> DiskView:
        name = volume_name(vm, disk)
        volume = await self.reader.volumes.find(Key(vm.metadata.namespace, name))
        holder = volume.status.used_by if volume is not None else None
        alive = False
        if holder == vm.metadata.name:
            alive = True
        elif holder is not None:
            alive = await self.reader.vms.find(Key(vm.metadata.namespace, holder)) is not None
        return DiskView(disk, name, volume, alive)

    async def _nic(
        self, vm: VirtualMachine, nic: NetworkInterface, plugged: Launched | None, lost: Collection[str]
    ) -> NicView:
        network = await self._network(nic.network_ref.name)
        held = as_plugged(nic, plugged)
        other = held.network_ref != nic.network_ref
        port = await self._port(vm, held, await self._network(held.network_ref.name) if other else network)
        return NicView(nic, network, port, lost=nic.name in lost)

    def _plug_refusals(self, vm: VirtualMachine, machine: Machine | None) -> dict[tuple[DeviceKind, str], PlugRefusal]:
        """Those that still are about what is wanted."""
        if machine is None:
            return {}
        now = self.clock.monotonic()
        return {
            (kind, name): PlugRefusal(one.message, None if one.until is None else one.until - now)
            for (kind, name), one in self._run(machine).refused.items()
            if one.wish == wish_of(vm, kind, name) and (one.until is None or one.until > now)
        }

    async def _port(self, vm: VirtualMachine, nic: NetworkInterface, network: Network | None) -> PortView | None:
        if network is None or not has_port(network):
            return None
        name = port_name(vm, nic.name)
        port = await self.reader.ports.find(Key(vm.metadata.namespace, name))
        own = port.spec if port is not None and is_made_for(port, vm) else None
        chooses = network.spec.provider is NetworkProvider.NAT and not nic.addresses
        return PortView(name, network, port, wanted_spec(vm, nic, network, own), chooses)

    def _former_ports(self, vm: VirtualMachine, plugged: Launched | None) -> tuple[str, ...]:
        nics = {nic.name for nic in (*vm.spec.networks, *(plugged.spec.networks if plugged is not None else ()))}
        kept = {port_name(vm, nic) for nic in nics}
        keys = self.reader.ports_of(vm.metadata.uid or "")
        return tuple(key.name for key in keys if key.namespace == vm.metadata.namespace and key.name not in kept)

    async def _network(self, name: str) -> Network | None:
        return await self.reader.networks.find(Key(None, name))

    async def _kernel_image(self, vm: VirtualMachine) -> Image | None:
        reference = vm.spec.firmware.image_ref
        return await self.reader.images.find(Key(vm.metadata.namespace, reference.name)) if reference else None

    async def _missing_secrets(self, vm: VirtualMachine) -> list[str]:
        missing = []
        for reference in secret_references(vm):
            secret = await self.reader.secrets.find(Key(vm.metadata.namespace, reference.name))
            if secret is None:
                missing.append(f"Secret {reference.name}")
            elif reference.key not in (secret.data or {}):
                missing.append(f"key {reference.key} in Secret {reference.name}")
        return missing


def wish_of(vm: VirtualMachine, kind: DeviceKind, name: str) -> NetworkInterface | Disk | None:
    """As what the spec wants the device; ``None``: not at all."""
    wishes: Sequence[NetworkInterface | Disk] = vm.spec.networks if kind is DeviceKind.NIC else vm.spec.disks
    return next((one for one in wishes if one.name == name), None)


def secret_references(vm: VirtualMachine) -> list[SecretKeyReference]:
    cloud_init = vm.spec.cloud_init
    if cloud_init is None:
        return []
    both = (cloud_init.user_data_secret_ref, cloud_init.network_data_secret_ref)
    return [reference for reference in both if reference is not None]


def _former_volumes(vm: VirtualMachine) -> tuple[str, ...]:
    wanted = {volume_name(vm, disk) for disk in vm.spec.disks}
    return tuple(disk.volume_name for disk in vm.status.disks or [] if disk.volume_name not in wanted)
