"""Which SmartNIC a machine is, and what it shows: from links, sysfs and devlink's words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from carmel.errors import CarmelError, Refused
from carmel.hardware.boards.registry import catalogue
from carmel.hardware.sysroot import Sysroot
from carmel.network.host.kernel import Lent, Link
from carmel.network.names import LINK_GROUP
from carmel.resources.smartnic import SmartNICMode
from carmel.run import Command, ProgramFailed, Result
from carmel.smartnic.models.bluefield import BlueField, bluefield_board, read_ports, shown_by
from carmel.smartnic.models.emulated import EmulatedNic, is_emulated
from carmel.smartnic.models.emulated import shown_by as emulated_shows
from carmel.smartnic.models.find import find_model
from carmel.smartnic.models.model import Flavour, Function, Representor

MELLANOX = "https://www.mellanox.com"


def links(*some: Link) -> dict[str, Link]:
    return {link.name: link for link in some}


def sysfs(folder: Path, **words: str) -> Sysroot:
    """A synthetic tree with what the firmware says."""
    dmi = folder / "sys/class/dmi/id"
    dmi.mkdir(parents=True)
    for name, word in words.items():
        (dmi / name).write_text(f"{word}\n")
    return Sysroot(folder)


class Programs:
    """A runner that answers from a script, by the words of a command."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = dict(answers)
        self.ran: list[str] = []

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        words = " ".join(map(str, command.argv))
        self.ran.append(words)
        answer = self.answers.get(words)
        if answer is None:
            raise ProgramFailed(command, Result(1, b"", b"Operation not supported"))
        return Result(0, answer.encode() if isinstance(answer, str) else json.dumps(answer).encode(), b"")


# -- the emulated one -------------------------------------------------------------------------------------------------
LAB = links(
    Link("lo", 1, loopback=True),
    Link("tmfifo_net0", 2, mac="52:54:00:ca:00:02", up=True),
    Link("p0", 3, mac="52:54:00:ca:03:00", up=True),
    Link("pf0vf0", 4, mac="52:54:00:ca:02:00"),
    Link("eth9", 5, mac="52:54:00:ca:02:0a"),
    Link("cmp1", 6, mac="52:54:00:ca:02:02", group=LINK_GROUP, up=True, alias=Lent("pf0vf2", 1500).alias("vm", "eth0")),
    Link("cmb1", 7, mac="52:54:00:ca:03:00", kind="bridge", group=LINK_GROUP),
    Link("eth0", 8, mac="52:54:00:12:34:56"),
)


def test_addresses_say_what_the_emulated_one_shows() -> None:
    shown = emulated_shows(LAB)
    assert shown.functions == (
        Function("pf0vf0", "52:54:00:ca:01:00", "pf0vf0"),
        Function("pf0vf2", "52:54:00:ca:01:02", "pf0vf2"),
        Function("pf0vf10", "52:54:00:ca:01:0a", "eth9"),
    )
    assert shown.representors == (
        Representor("p0", "p0", Flavour.PHYSICAL, None, up=True),
        Representor("eth9", "eth9", Flavour.PCI_VF, "pf0vf10"),
        Representor("pf0vf0", "pf0vf0", Flavour.PCI_VF, "pf0vf0"),
        Representor("pf0vf2", "cmp1", Flavour.PCI_VF, "pf0vf2", up=True),
    )
    assert (shown.mode, shown.hardware_offload, shown.problem) == (SmartNICMode.DPU, False, None)
    assert shown.function("pf0vf9") is None
    found = shown.representor_of("pf0vf10")
    assert found is not None
    assert found.interface == "eth9"


def test_the_host_of_an_emulated_one_is_none() -> None:
    assert is_emulated(LAB)
    assert not is_emulated(links(Link("tmfifo_net0", 2, mac="52:54:00:ca:00:01")))


async def test_an_emulated_one_has_the_serial_that_its_vm_was_given_and_keeps_its_addresses(tmp_path: Path) -> None:
    nic = EmulatedNic(sysfs(tmp_path, product_serial="lab-1"))
    assert (nic.serial, nic.board in catalogue()) == ("lab-1", True)
    assert (await nic.look(LAB)).functions[0].id == "pf0vf0"
    with pytest.raises(Refused) as refused:
        await nic.set_mac("pf0vf0", "52:54:00:00:00:01")
    assert refused.value.code == "MacNotSettable"


# -- BlueField --------------------------------------------------------------------------------------------------------
DEVICE = "pci/0000:03:00.0"
PORTS = {
    "port": {
        f"{DEVICE}/262143": {"type": "eth", "netdev": "p0", "flavour": "physical", "port": 0, "splittable": False},
        f"{DEVICE}/196608": {
            "type": "eth", "netdev": "pf0hpf", "flavour": "pcipf", "controller": 1, "pfnum": 0, "external": True,
            "function": {"hw_addr": "08:C0:EB:00:00:01"},
        },
        f"{DEVICE}/196609": {
            "type": "eth", "netdev": "pf0vf0", "flavour": "pcivf", "controller": 1, "pfnum": 0, "vfnum": 0,
            "external": True, "function": {"hw_addr": "00:00:00:00:00:00"},
        },
        f"{DEVICE}/196610": {
            "type": "eth", "netdev": "cmp1", "flavour": "pcivf", "controller": 1, "pfnum": 0, "vfnum": 1,
            "external": True, "function": {"hw_addr": "52:54:00:00:00:01"},
        },
        f"{DEVICE}/229408": {
            "type": "eth", "netdev": "en3f0pf0sf0", "flavour": "pcisf", "controller": 0, "pfnum": 0, "sfnum": 0,
            "external": False, "function": {"hw_addr": "02:00:00:00:00:01", "state": "active"},
        },
        f"{DEVICE}/1": {"type": "notset", "flavour": "pcivf", "pfnum": 0, "vfnum": 7, "external": True},
        f"{DEVICE}/2": {"type": "eth", "netdev": "x", "flavour": "virtual"},
    }
}  # fmt: skip
ARM_SIDE = links(
    Link("p0", 2, up=True),
    Link("pf0hpf", 3, up=True),
    Link("pf0vf0", 4),
    Link("cmp1", 5, group=LINK_GROUP, up=True, alias=Lent("pf0vf1", 1500).alias("vm", "eth0")),
    Link("en3f0pf0sf0", 6),
)
SWITCHDEV = {"dev": {DEVICE: {"mode": "switchdev", "inline-mode": "none", "encap-mode": "basic"}}}
ASKED = {
    "devlink -j port show": PORTS,
    f"devlink -j dev eswitch show {DEVICE}": SWITCHDEV,
    "ethtool -k p0": "Features for p0:\nrx-checksumming: on\nhw-tc-offload: on\n",
}


@pytest.mark.parametrize(
    ("vendor", "product", "board"),
    [
        (MELLANOX, "BlueField SoC", "bluefield-2"),
        (MELLANOX, "BlueField-3 SmartNIC Main Card", "bluefield-3"),
        ("NVIDIA", "BlueField-3 DPU", "bluefield-3"),
        ("QEMU", "BlueField SoC", None),
        (MELLANOX, "ConnectX", None),
        ("", "", None),
    ],
)
def test_a_bluefield_is_known_by_its_firmware(tmp_path: Path, vendor: str, product: str, board: str | None) -> None:
    found = bluefield_board(sysfs(tmp_path, sys_vendor=vendor, product_name=product))
    assert found == board
    assert board is None or board in catalogue()


async def test_what_devlink_says_of_a_bluefield(tmp_path: Path) -> None:
    nic = BlueField("bluefield-2", sysfs(tmp_path, product_serial="MT2149X00001"), Programs(ASKED))
    shown = await nic.look(ARM_SIDE)
    assert nic.serial == "MT2149X00001"
    assert (shown.mode, shown.hardware_offload, shown.problem) == (SmartNICMode.DPU, True, None)
    assert shown.functions == (
        Function("pf0", "08:c0:eb:00:00:01", "pf0hpf"),
        Function("pf0vf0", None, "pf0vf0"),
        Function("pf0vf1", "52:54:00:00:00:01", "pf0vf1"),
    )
    assert shown.representors == (
        Representor("en3f0pf0sf0", "en3f0pf0sf0", Flavour.PCI_SF),
        Representor("p0", "p0", Flavour.PHYSICAL, None, up=True),
        Representor("pf0hpf", "pf0hpf", Flavour.PCI_PF, "pf0", up=True),
        Representor("pf0vf0", "pf0vf0", Flavour.PCI_VF, "pf0vf0"),
        Representor("pf0vf1", "cmp1", Flavour.PCI_VF, "pf0vf1", up=True),
    )


async def test_offload_is_that_of_all_uplinks(tmp_path: Path) -> None:
    root = sysfs(tmp_path)
    for said in ("hw-tc-offload: off [fixed]\n", None):
        programs = Programs({**ASKED, "ethtool -k p0": said})
        assert not (await BlueField("bluefield-2", root, programs).look(ARM_SIDE)).hardware_offload


def test_a_nic_that_shows_no_representors_says_why() -> None:
    ports = read_ports(PORTS)
    legacy = shown_by(ports, {DEVICE: "legacy"}, ARM_SIDE, offload=False)
    assert (legacy.mode, legacy.functions) == (SmartNICMode.NIC, ())
    assert f"{DEVICE} is in mode legacy" in (legacy.problem or "")
    nothing = shown_by((), {}, {}, offload=False)
    assert nothing.mode is SmartNICMode.NIC
    assert "NIC mode" in (nothing.problem or "")


async def test_a_function_is_given_an_address_by_devlink(tmp_path: Path) -> None:
    given = f"devlink port function set {DEVICE}/196609 hw_addr 52:54:00:00:00:02"
    programs = Programs({**ASKED, given: ""})
    nic = BlueField("bluefield-2", sysfs(tmp_path), programs)
    await nic.set_mac("pf0vf0", "52:54:00:00:00:02")
    assert programs.ran[-1] == given
    await nic.set_mac("pf0vf1", "52:54:00:00:00:01")
    assert programs.ran[-1] == "devlink -j port show"
    with pytest.raises(Refused) as refused:
        await nic.set_mac("pf0vf1", "52:54:00:00:00:03")
    assert refused.value.code == "MacNotSettable"
    with pytest.raises(Refused) as refused:
        await nic.set_mac("pf0vf9", "52:54:00:00:00:03")
    assert refused.value.code == "NoSuchFunction"


async def test_a_devlink_that_talks_nonsense_is_an_error(tmp_path: Path) -> None:
    nic = BlueField("bluefield-2", sysfs(tmp_path), Programs({"devlink -j port show": "pci/0000: type eth"}))
    with pytest.raises(CarmelError) as raised:
        await nic.look(ARM_SIDE)
    assert raised.value.code == "DevlinkNotUnderstood"


# -- which one --------------------------------------------------------------------------------------------------------
def test_the_model_is_found_or_the_machine_is_no_smartnic(tmp_path: Path) -> None:
    bluefield = sysfs(tmp_path, sys_vendor=MELLANOX, product_name="BlueField SoC")
    assert find_model(bluefield, {}, Programs({})).board == "bluefield-2"
    assert find_model(bluefield, LAB, Programs({})).board == "emulated"
    with pytest.raises(Refused) as refused:
        find_model(sysfs(tmp_path / "other", sys_vendor="QEMU"), links(Link("eth0", 2)), Programs({}))
    assert refused.value.code == "NoSmartNIC"
