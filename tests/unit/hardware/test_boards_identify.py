"""Machines are recognised by the words that real ones say. Where such words were seen stands beside each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.hardware.boards import catalogue, identify
from carmel.hardware.model import Board, CpuKind, Hardware

A72, A76, N1, V2 = (0x41, 0xD08), (0x41, 0xD0B), (0x41, 0xD0C), (0x41, 0xD4F)
CARMEL, TSV110, EMAG = (0x4E, 0x004), (0x48, 0xD01), (0x50, 0x000)


def kinds(midr: tuple[int, int] | None, cpus: int) -> tuple[CpuKind, ...]:
    implementer, part = midr or (None, None)
    return (CpuKind("a core", tuple(range(cpus)), implementer=implementer, part=part),)


def dmi(vendor: str, product: str) -> Board:
    return Board(vendor=vendor, product=product)


def tree(*compatible: str) -> Board:
    return Board(compatible=compatible)


SEEN = [
    # Root nodes of device trees, Linux arch/arm64/boot/dts and arch/arm/boot/dts.
    ("raspberry-pi-4b", tree("raspberrypi,4-model-b", "brcm,bcm2711"), kinds(A72, 4), 1, 1),
    ("raspberry-pi-400", tree("raspberrypi,400", "brcm,bcm2711"), kinds(A72, 4), 1, 1),
    ("raspberry-pi-5", tree("raspberrypi,5-model-b", "brcm,bcm2712"), kinds(A76, 4), 1, 1),
    ("jetson-agx-xavier", tree("nvidia,p2972-0000", "nvidia,tegra194"), kinds(CARMEL, 8), 1, 1),
    ("jetson-agx-xavier", tree("nvidia,p2888", "nvidia,tegra194"), kinds(CARMEL, 8), 1, 1),
    ("jetson-xavier-nx", tree("nvidia,p3509-0000+p3668-0000", "nvidia,tegra194"), kinds(CARMEL, 6), 1, 1),
    ("jetson-agx-orin", tree("nvidia,p3737-0000+p3701-0000", "nvidia,p3701-0000", "nvidia,tegra234"), (), 1, 1),
    ("jetson-agx-orin", tree("nvidia,p3737-0000+p3701-0000"), kinds((0x41, 0xD42), 12), 1, 1),
    ("honeycomb-lx2k", tree("solidrun,honeycomb", "solidrun,lx2160a-cex7", "fsl,lx2160a"), kinds(A72, 16), 1, 1),
    ("apple-m1", tree("apple,j274", "apple,t8103", "apple,arm-platform"), (), 1, 1),
    # NVIDIA's own kernels: Jetson.GPIO, compats_nx; a module on a carrier of its own, with power mode of two cores.
    ("jetson-xavier-nx", tree("nvidia,p3449-0000+p3668-0001", "nvidia,tegra194"), kinds(CARMEL, 2), 1, 1),
    # "Hardware name:" in reports to the Linux kernel's mailing list, which is DMI's vendor and product.
    ("raspberry-pi-4b", dmi("Raspberry Pi Foundation", "Raspberry Pi 4 Model B"), kinds(A72, 4), 1, 1),
    ("mt-jade-altra", dmi("WIWYNN", "Mt.Jade Server System B81.03001.0005"), kinds(N1, 160), 2, 2),
    ("mt-jade-altra", dmi("WIWYNN", "Mt.Jade Server System B81.030Z1.0007"), kinds(N1, 160), 2, 1),
    ("mt-jade-altra-quadrant", dmi("WIWYNN", "Mt.Jade Server System B81.030Z1.0007"), kinds(N1, 160), 2, 8),
    ("mt-jade-altra-hemisphere", dmi("WIWYNN", "Mt.Jade Server System B81.030Z1.0007"), kinds(N1, 160), 2, 4),
    ("mt-jade-altra-max", dmi("WIWYNN", "Mt.Jade Server System B81.030Z1.0007"), kinds(N1, 256), 2, 2),
    ("mt-jade-altra-max-quadrant", dmi("WIWYNN", "Mt.Jade Server System B81.030Z1.0007"), kinds(N1, 256), 2, 8),
    ("emag", dmi("Lenovo", "HR330A            7X33CTO1WW"), kinds(EMAG, 32), 1, 1),
    ("emag", dmi("Lenovo", "HR350A            7X35CTO1WW"), kinds(EMAG, 32), 1, 1),
    ("honeycomb-lx2k", dmi("SolidRun Ltd.", "SolidRun CEX7 Platform"), kinds(A72, 16), 1, 1),
    ("graviton2-metal", dmi("Amazon EC2", "c6g.metal"), kinds(N1, 64), 1, 1),
    ("bluefield-2", dmi("https://www.mellanox.com", "BlueField SoC"), kinds(A72, 8), 1, 1),
    ("bluefield-3", dmi("https://www.mellanox.com", "BlueField-3 SmartNIC Main Card"), kinds((0x41, 0xD42), 16), 1, 1),
    ("kunpeng-920-2p", dmi("Huawei", "TaiShan 2280 V2"), kinds(TSV110, 128), 2, 4),
    # lshw, neofetch and hardware probes of single machines: see the sources in boards/ampere.py.
    ("altra-one-socket", dmi("GIGABYTE", "R152-P31-00"), kinds(N1, 80), 1, 1),
    ("altra-one-socket", dmi("ASRockRack", "ALTRAD8UD-1L2T"), kinds(N1, 64), 1, 1),
    ("altra-max-one-socket", dmi("Ampere", "Ampere Altra Developer Platform ES2"), kinds(N1, 96), 1, 1),
]

OTHERS = [
    ("another Pi", tree("raspberrypi,3-model-b", "brcm,bcm2837"), kinds((0x41, 0xD03), 4), 1),
    ("another Tegra", tree("nvidia,p3310-1000", "nvidia,tegra186"), (), 1),
    ("a board with the same chip", tree("solidrun,clearfog-cx", "solidrun,lx2160a-cex7", "fsl,lx2160a"), (), 1),
    ("a virtual EC2 instance", dmi("Amazon EC2", "c6g.16xlarge"), kinds(N1, 64), 1),
    ("a first BlueField", dmi("https://www.mellanox.com", "BlueField SoC"), kinds(A72, 16), 1),
    ("an older TaiShan", dmi("Huawei", "TaiShan 2280"), kinds(A72, 64), 2),
    ("a Kunpeng with fewer cores", dmi("Huawei", "TaiShan 2280 V2"), kinds(TSV110, 96), 2),
    ("an x86 Lenovo", dmi("Lenovo", "HR355M-V3-G12"), kinds(None, 48), 1),
    ("half a Mt. Jade", dmi("WIWYNN", "Mt.Jade Server System B81.030Z1.0007"), kinds(N1, 80), 1),
    ("a forged name on other cores", dmi("WIWYNN", "Mt.Jade Server System B81.030Z1.0007"), kinds(V2, 160), 2),
    ("a tree's name on other cores", tree("raspberrypi,4-model-b", "brcm,bcm2711"), kinds(N1, 4), 1),
    ("a virtual machine", dmi("QEMU", "QEMU Virtual Machine"), kinds(N1, 4), 1),
    ("a machine that says nothing", Board(), (), 1),
    ("a machine with nothing", Board(), (), 0),
]


@pytest.mark.parametrize(("board_id", "board", "cores", "sockets", "nodes"), SEEN)
def test_real_words_name_the_board(
    board_id: str, board: Board, cores: tuple[CpuKind, ...], sockets: int, nodes: int
) -> None:
    assert identify(board, cores, sockets, nodes=nodes) == board_id


@pytest.mark.parametrize(("board", "cores", "sockets"), [one[1:] for one in OTHERS], ids=[one[0] for one in OTHERS])
def test_what_is_not_in_the_catalogue_is_taken_for_nothing(
    board: Board, cores: tuple[CpuKind, ...], sockets: int
) -> None:
    assert identify(board, cores, sockets, nodes=sockets) is None


def test_each_board_that_real_machines_are_is_recognised_somewhere() -> None:
    never = {"graviton-metal", "generic-systemready", "generic-x86-64", "mt-jade-altra-max-hemisphere", "emulated"}
    assert {one[0] for one in SEEN} == set(catalogue()) - never


def test_bare_metal_of_amazon_is_named_by_its_instance_type() -> None:
    assert identify(dmi("Amazon EC2", "a1.metal"), kinds(A72, 16), 1) == "graviton-metal"
    assert identify(dmi("Amazon EC2", "a1.4xlarge"), kinds(A72, 16), 1) is None
    assert identify(dmi("Amazon EC2", "a1.metal"), kinds(N1, 16), 1) is None


def test_without_the_number_of_nodes_a_board_is_in_its_plain_mode() -> None:
    assert identify(dmi("WIWYNN", "Mt.Jade Server System"), kinds(N1, 160), 2) == "mt-jade-altra"


def test_case_and_spaces_do_not_count() -> None:
    assert identify(dmi(" wiwynn ", "MT.JADE  Server\tSystem"), kinds(N1, 160), 2) == "mt-jade-altra"


def test_the_device_trees_first_words_win() -> None:
    both = tree("raspberrypi,400", "raspberrypi,4-model-b", "brcm,bcm2711")
    assert identify(both, kinds(A72, 4), 1) == "raspberry-pi-400"


def test_the_recorded_machine_is_a_kunpeng_920(recorded: Hardware) -> None:
    assert recorded.board.catalogue_id == "kunpeng-920-2p"


words = st.one_of(st.none(), st.text(max_size=400), st.sampled_from(["WIWYNN", "Huawei", "[", "*", "mt.jade[", "\0"]))


@given(
    vendor=words,
    product=words,
    compatible=st.lists(st.text(max_size=60), max_size=6).map(tuple),
    cpus=st.integers(0, 300),
    midr=st.one_of(st.none(), st.tuples(st.integers(-1, 255), st.integers(-1, 4095))),
    sockets=st.integers(-2, 9),
    nodes=st.one_of(st.none(), st.integers(-2, 64)),
)
def test_odd_words_are_no_board_and_no_error(
    vendor: str | None,
    product: str | None,
    compatible: tuple[str, ...],
    cpus: int,
    midr: tuple[int, int] | None,
    sockets: int,
    nodes: int | None,
) -> None:
    found = identify(Board(vendor, product, compatible), kinds(midr, cpus), sockets, nodes=nodes)
    assert found is None or found in catalogue()
