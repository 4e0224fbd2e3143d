"""The recorded server agrees with hwloc's reading of the same files on every object and number."""

from __future__ import annotations

import pytest

from carmel.hardware.model import Cache, CacheType, Hardware
from tests.unit.hardware.lstopo import Console, Seen, parse_console
from tests.unit.hardware.recorded import hwlocs_reading

_GIB = 1 << 30
_CACHES = {
    "L3Cache": (3, CacheType.UNIFIED),
    "L2Cache": (2, CacheType.UNIFIED),
    "L1dCache": (1, CacheType.DATA),
    "L1iCache": (1, CacheType.INSTRUCTION),
}
_DMI = {
    "DMIProductName": "product_name",
    "DMIProductVersion": "product_version",
    "DMIProductSerial": "product_serial",
    "DMIProductUUID": "product_uuid",
    "DMIBoardVendor": "board_vendor",
    "DMIBoardName": "board_name",
    "DMIBoardVersion": "board_version",
    "DMIBoardSerial": "board_serial",
    "DMIBoardAssetTag": "board_asset_tag",
    "DMIChassisVendor": "chassis_vendor",
    "DMIChassisType": "chassis_type",
    "DMIChassisVersion": "chassis_version",
    "DMIChassisSerial": "chassis_serial",
    "DMIChassisAssetTag": "chassis_asset_tag",
    "DMIBIOSVendor": "bios_vendor",
    "DMIBIOSVersion": "bios_version",
    "DMIBIOSDate": "bios_date",
    "DMISysVendor": "sys_vendor",
}


@pytest.fixture(scope="module")
def theirs() -> Console:
    return parse_console(hwlocs_reading())


def test_every_object_of_hwlocs_is_looked_at(theirs: Console) -> None:
    counts = {kind: len(theirs.of(kind)) for kind in {one.type for one in theirs.objects}}
    assert counts == {
        "Machine": 1,
        "Package": 2,
        "L3Cache": 4,
        "NUMANode": 4,
        "Cluster": 32,
        "L2Cache": 128,
        "L1dCache": 128,
        "L1iCache": 128,
        "Core": 128,
        "PU": 128,
    }


def test_machine(recorded: Hardware, theirs: Console) -> None:
    machine = theirs.of("Machine")[0]
    assert rounded(recorded.memory_bytes) == machine.size("total")
    words = {key: value for key, value in machine.words.items() if key != "total"}
    assert {_DMI[key]: value.strip() for key, value in words.items()} == {
        name: recorded.board.dmi[name] for name in _DMI.values()
    }
    assert recorded.architecture == theirs.infos["Architecture"]
    sizes = [recorded.page_bytes, *(pool.size_bytes for pool in recorded.huge_pages)]
    assert ",".join(map(str, sizes)) == theirs.infos["PageSizes"]


def test_packages(recorded: Hardware, theirs: Console) -> None:
    nodes = {node.id: node for node in recorded.nodes}
    assert [(socket.id, socket.cpus) for socket in recorded.sockets] == identities(theirs.of("Package"))
    for socket, package in zip(recorded.sockets, theirs.of("Package"), strict=True):
        (kind,) = [kind for kind in recorded.cpu_kinds if set(socket.cpus) <= set(kind.cpus)]
        assert package.words["CPUArchitecture"] == "8"
        words = ("CPUImplementer", "CPUPart", "CPUVariant", "CPURevision")
        ids = tuple(int(package.words[word], 0) for word in words)
        assert ids == (kind.implementer, kind.part, kind.variant, kind.revision)
        homes = {cpu.node for cpu in recorded.cpus if cpu.socket == socket.id}
        assert rounded(sum(nodes[home].memory_bytes for home in homes)) == package.size("total")


@pytest.mark.parametrize("type_", _CACHES)
def test_caches(recorded: Hardware, theirs: Console, type_: str) -> None:
    ours = [cache for cache in recorded.caches if (cache.level, cache.type) == _CACHES[type_]]
    assert [described(cache) for cache in ours] == [
        (one.cpus, one.size("size"), int(one.words["linesize"]), int(one.words["ways"])) for one in theirs.of(type_)
    ]


def test_no_cache_is_ours_alone(recorded: Hardware) -> None:
    assert {(cache.level, cache.type) for cache in recorded.caches} == set(_CACHES.values())


def test_clusters_cores_and_threads(recorded: Hardware, theirs: Console) -> None:
    assert [(one.id, one.cpus) for one in recorded.clusters] == identities(theirs.of("Cluster"))
    assert [(one.id, one.cpus) for one in recorded.cores] == identities(theirs.of("Core"))
    assert [(one.id, (one.id,)) for one in recorded.cpus] == identities(theirs.of("PU"))
    for cpu, pu in zip(recorded.cpus, theirs.of("PU"), strict=True):
        held_by = tuple(above(pu, type_) for type_ in ("Package", "Cluster", "Core"))
        assert (cpu.socket, cpu.cluster, cpu.core) == held_by


def test_nodes(recorded: Hardware, theirs: Console) -> None:
    assert [(node.id, node.cpus) for node in recorded.nodes] == identities(theirs.of("NUMANode"))
    assert [rounded(node.memory_bytes) for node in recorded.nodes] == [
        node.size("local") for node in theirs.of("NUMANode")
    ]
    assert [list(node.distances.values()) for node in recorded.nodes] == theirs.latencies
    assert [list(node.distances) for node in recorded.nodes] == [[0, 1, 2, 3]] * 4
    for cache, node in zip(theirs.of("L3Cache"), recorded.nodes, strict=True):
        assert rounded(node.memory_bytes) == cache.size("total")


def test_kinds(recorded: Hardware, theirs: Console) -> None:
    (kind,) = recorded.cpu_kinds
    assert (kind.name, kind.capacity) == ("TaiShan v110", theirs.capacity)
    assert kind.cpus == theirs.of("Machine")[0].cpus


def test_what_hwloc_does_not_say(recorded: Hardware) -> None:
    """Two nodes in each socket, and the board by its words and cores."""
    assert [sorted({cpu.node for cpu in recorded.cpus if cpu.socket == one.id}) for one in recorded.sockets] == [
        [0, 1],
        [2, 3],
    ]
    assert recorded.board.catalogue_id == "kunpeng-920-2p"
    assert recorded.firmware.uefi
    assert (recorded.firmware.vendor, recorded.firmware.version) == ("Huawei Corp.", "0.86")
    assert recorded.remarks == (
        "The L3 unified caches are said to have 15 ways, but their size, lines and sets make 128: taken as 128.",
    )


def identities(objects: list[Seen]) -> list[tuple[int | None, tuple[int, ...]]]:
    return [(one.os_index, one.cpus) for one in objects]


def described(cache: Cache) -> tuple[tuple[int, ...], int | None, int | None, int | None]:
    return cache.cpus, cache.size_bytes, cache.line_bytes, cache.ways


def above(pu: Seen, type_: str) -> int | None:
    """The number of the object of that type that holds the PU."""
    one: Seen | None = pu
    while one is not None and one.type != type_:
        one = one.parent
    assert one is not None
    return one.os_index


def rounded(size: int) -> int:
    return (size + _GIB // 2) // _GIB * _GIB
