"""Command lines against their goldens. ``CARMEL_GOLDEN=write`` writes them anew: then read the difference."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.hypervisor.arch import architecture
from carmel.hypervisor.commandline import CommandLine, Platform, Start, command_line
from carmel.hypervisor.config import Accelerator, CpuConfig, DiskConfig, MachineConfig, NicConfig
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.firmware import FirmwareFiles
from carmel.hypervisor.layers import Layer
from carmel.hypervisor.slots import Slots, hot_plug_ports
from carmel.resources.virtualmachine import DiskBus
from tests.unit.hypervisor.cases import (
    HERE,
    PATHS,
    SOCKETS,
    Case,
    abilities,
    as_argv,
    as_text,
    cases,
    layers,
    machine,
    with_model,
)

FIRMWARE = FirmwareFiles(Path("/code.fd"), None)
# Words of x86 machines that must never be in an Arm guest's command line.
FORBIDDEN = re.compile(r"hpet|q35|seabios|bios-256k|vga|x86_64-cpu|isa-|kvmclock|smm(?!uv3)", re.IGNORECASE)


def build(
    config: MachineConfig,
    *,
    version: str = "7.2",
    accelerator: Accelerator = Accelerator.TCG,
    firmware: FirmwareFiles | None = FIRMWARE,
    start: Start | None = None,
) -> CommandLine:
    platform = Platform(architecture("aarch64"), abilities(version), accelerator, firmware)
    return command_line(config, platform, PATHS, start or Start("0123abcd", SOCKETS), layers())


def value_after(argv: tuple[str, ...], option: str) -> str:
    return argv[argv.index(option) + 1]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_command_line_is_the_golden_one(case: Case) -> None:
    golden = HERE / "golden" / f"{case.name}.txt"
    text = as_text(case.argv())
    if os.environ.get("CARMEL_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
    assert tuple(as_argv(text)) == case.argv()


def test_there_is_no_golden_without_a_case() -> None:
    assert {path.stem for path in (HERE / "golden").glob("[0-9]*.txt")} == {case.name for case in cases()}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_no_x86_default_gets_through(case: Case) -> None:
    assert not FORBIDDEN.search(as_text(case.argv()))


def test_a_comma_in_a_name_makes_no_option() -> None:
    argv = build(machine()).argv
    assert value_after(argv, "-name") == "guest=default/web,,spawn=allow/0123abcd,debug-threads=on"


def test_an_address_stays_when_a_device_is_added() -> None:
    config = machine()
    more = replace(config, nics=(*config.nics, NicConfig("b", "52:54:00:12:34:57", {"type": "user"})))
    before, after = (
        {word for word in build(each).argv if "virtio-blk" in word or '"nic0"' in word} for each in (config, more)
    )
    assert before
    assert before == after


def test_with_an_iommu_each_nic_has_a_port_of_its_own_at_its_slot() -> None:
    config = replace(
        machine(), nics=tuple(NicConfig(f"n{n}", f"52:54:00:12:34:5{n}", {"type": "user"}) for n in range(8))
    )
    argv = build(replace(config, iommu=True)).argv
    devices = [json.loads(word) for word in argv if word.startswith('{"driver"')]
    ports = [device for device in devices if device["driver"] == "pcie-root-port"]
    nics = [device for device in devices if device["driver"] == "virtio-net-pci"]
    before = [json.loads(word)["addr"] for word in build(config).argv if '"id":"nic' in word]
    behind = {port["id"]: port["addr"] for port in ports if port["id"].startswith("nicport")}
    assert [behind[nic["bus"]] for nic in nics] == before
    assert len({port["chassis"] for port in ports}) == len(ports) == 16


def test_with_an_iommu_each_nvme_drive_sits_behind_a_port_of_its_own() -> None:
    buses = (DiskBus.VIRTIO, DiskBus.NVME, DiskBus.NVME, DiskBus.VIRTIO)
    disks = tuple(DiskConfig(f"d{n}", bus, Path(f"/data/d{n}"), "raw", f"d{n}") for n, bus in enumerate(buses))
    config = replace(machine(), disks=disks, iommu=True)
    platform = Platform(architecture("aarch64"), abilities("7.2"), Accelerator.TCG, FIRMWARE)
    layered = {disk.name: [Layer(disk.path, "raw")] for disk in disks}
    built = command_line(config, platform, PATHS, Start("0123abcd", SOCKETS), layered)
    options = [json.loads(word) for option, word in pairwise(built.argv) if option == "-device" and word[0] == "{"]
    devices = {one["id"]: one for one in options if "id" in one}
    assert [devices[f"disk{n}-dev"].get("addr") for n in range(4)] == ["10.0", None, None, "10.1"]
    for number, address in ((1, "12.0"), (2, "13.0")):
        port = devices[devices[f"disk{number}-dev"]["bus"]]
        assert (port["driver"], port["addr"], "multifunction" in port) == ("pcie-root-port", address, False)
    assert [one.port for one in built.devices if one.kind is DeviceKind.DISK] == [None, "diskport1", "diskport2", None]


@pytest.mark.parametrize(("iommu", "most"), [(False, 128), (True, 16)])
def test_disks_end_where_ports_begin(iommu: bool, most: int) -> None:
    slots = Slots(iommu=iommu)
    taken = {slots.disk()["addr"] for _ in range(most)}
    assert len(taken) == most
    assert not taken & {slots.port(index)["addr"] for index in range(hot_plug_ports(iommu=iommu))}
    with pytest.raises(Refused) as caught:
        slots.disk()
    assert (caught.value.code, caught.value.field) == ("TooManyDevices", "spec.disks")


def test_with_an_iommu_each_nvme_drive_has_a_slot_of_its_own() -> None:
    """Else they are one group to the guest once it was started anew, and cannot be given to its VMs one by one."""
    slots = Slots(iommu=True)
    disks, drives = [slots.disk() for _ in range(16)], [slots.drive() for _ in range(6)]
    alone = [str(drive["addr"]).split(".") for drive in drives]
    assert {function for _, function in alone} == {"0"}
    others = {str(slot["addr"]).split(".")[0] for slot in [*disks, *(slots.port(index) for index in range(8))]}
    assert len({slot for slot, _ in alone} - others) == 6
    with pytest.raises(Refused, match="at most 6 NVMe drives"):
        slots.drive()


@pytest.mark.parametrize(("name", "devices"), [("aarch64", frozenset[str]()), ("x86_64", frozenset({"arm-smmuv3"}))])
def test_an_iommu_that_cannot_be_had_is_refused(name: str, devices: frozenset[str]) -> None:
    qemu = replace(
        abilities("7.2"),
        devices=devices,
        machine_types={"pc-q35-7.2": 288, "virt-7.2": 512},
        cpu_models=frozenset({"max", "cortex-a57"}),
    )
    platform = Platform(architecture(name), qemu, Accelerator.TCG, FIRMWARE)
    with pytest.raises(Refused) as caught:
        command_line(replace(machine(), iommu=True), platform, PATHS, Start("0123abcd", SOCKETS), layers())
    assert (caught.value.code, caught.value.field) == ("IOMMUUnavailable", "spec.iommu")


def test_queues_have_an_interrupt_each() -> None:
    netdev = {"type": "tap", "fds": "30:31:32:33", "vhost": True, "vhostfds": "34:35:36:37"}
    nic = NicConfig("a", "52:54:00:12:34:57", netdev, descriptors=(30, 31, 32, 33, 34, 35, 36, 37), queues=4)
    argv = build(replace(machine(), nics=(nic,))).argv
    device = json.loads(next(word for word in argv if "virtio-net-pci" in word))
    assert (device["mq"], device["vectors"]) == (True, 10)
    assert json.loads(value_after(argv, "-netdev")) == {**netdev, "id": "net0"}
    one = json.loads(next(word for word in build(machine()).argv if "virtio-net-pci" in word))
    assert "mq" not in one
    assert "vectors" not in one


def test_a_guest_is_told_its_mtu() -> None:
    nic = NicConfig("a", "52:54:00:12:34:57", {"type": "tap", "fds": "30"}, descriptors=(30,), mtu=9000)
    told = build(replace(machine(), nics=(nic,))).argv
    assert json.loads(next(word for word in told if "virtio-net-pci" in word))["host_mtu"] == 9000
    assert not any("host_mtu" in word for word in build(machine()).argv)


def test_the_newest_machine_type_is_pinned() -> None:
    assert build(machine()).machine_type == "virt-7.2"
    assert build(machine(), version="10.0").machine_type == "virt-10.0"


@pytest.mark.parametrize(
    ("accelerator", "model", "expected"),
    [
        (Accelerator.TCG, None, "cortex-a57"),
        (Accelerator.TCG, "max", "max,pauth-impdef=on"),
        (Accelerator.TCG, "neoverse-n1", "neoverse-n1"),
        (Accelerator.KVM, None, "host"),
        (Accelerator.HVF, "host", "host"),
    ],
)
def test_cpu_model(accelerator: Accelerator, model: str | None, expected: str) -> None:
    config = machine() if model is None else with_model(machine(), model)
    assert build(config, accelerator=accelerator).cpu_model == expected


@pytest.mark.parametrize(
    ("accelerator", "model"),
    [(Accelerator.TCG, "host"), (Accelerator.TCG, "qemu64"), (Accelerator.KVM, "cortex-a57")],
)
def test_a_cpu_model_that_cannot_be_had_is_refused(accelerator: Accelerator, model: str) -> None:
    with pytest.raises(Refused) as caught:
        build(with_model(machine(), model), accelerator=accelerator)
    assert (caught.value.code, caught.value.field) == ("UnknownCPUModel", "spec.cpu.model")


def test_more_vcpus_than_the_machine_takes_are_refused() -> None:
    config = machine()
    wide = replace(config, cpu=CpuConfig(count=513, sockets=1, clusters=1, cores=513, threads=1))
    with pytest.raises(Refused) as caught:
        build(wide)
    assert caught.value.code == "TooManyCPUs"


def test_uefi_without_firmware_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        build(machine(uefi=True), firmware=None)
    assert caught.value.code == "NoFirmware"
    assert caught.value.hint


def test_a_restored_machine_waits_for_its_state() -> None:
    argv = build(machine(), start=Start("0123abcd", SOCKETS, incoming=True)).argv
    assert "-S" in argv
    assert value_after(argv, "-incoming") == "defer"


def test_a_qemu_without_sandbox_or_pvpanic_gets_neither() -> None:
    bare = abilities("7.2")
    bare = replace(
        bare,
        options={name: words for name, words in bare.options.items() if name != "sandbox"},
        devices=bare.devices - {"pvpanic-pci"},
    )
    platform = Platform(architecture("aarch64"), bare, Accelerator.TCG, FIRMWARE)
    argv = command_line(machine(), platform, PATHS, Start("0123abcd", SOCKETS), layers()).argv
    assert "-sandbox" not in argv
    assert not any("pvpanic" in word for word in argv)


def test_many_usb_disks_get_a_second_controller() -> None:
    config = machine(DiskBus.USB)
    disks = tuple(replace(config.disks[1], name=f"d{index}") for index in range(24))
    shared = {disk.name: layers()["data"] for disk in disks}
    platform = Platform(architecture("aarch64"), abilities("7.2"), Accelerator.TCG, FIRMWARE)
    argv = command_line(replace(config, disks=disks), platform, PATHS, Start("0123abcd", SOCKETS), shared).argv
    assert sum("qemu-xhci" in word for word in argv) == 2
    assert sum('"bus":"usb1.0"' in word for word in argv) == 9


def test_x86_64_is_its_own_strategy() -> None:
    intel = replace(
        abilities("7.2"),
        binary=Path("/usr/bin/qemu-system-x86_64"),
        target="x86_64",
        machine_types={"pc-q35-7.2": 288, "pc-q35-2.9": 255, "pc-i440fx-7.2": 255},
        cpu_models=frozenset({"max", "qemu64"}),
    )
    platform = Platform(architecture("x86_64"), intel, Accelerator.TCG, None)
    line = command_line(machine(), platform, PATHS, Start("0123abcd", SOCKETS), layers())
    golden = HERE / "golden" / "x86_64-tcg-kernel.txt"
    if os.environ.get("CARMEL_GOLDEN") == "write":
        golden.write_text(as_text(line.argv))
    assert as_text(line.argv) == golden.read_text()
    with pytest.raises(Refused) as caught:
        command_line(machine(uefi=True), platform, PATHS, Start("0123abcd", SOCKETS), layers())
    assert caught.value.code == "UnsupportedFirmware"
