"""This machine, and the recorded server, read by us and by hwloc at the same moment."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from carmel.hardware.model import CacheType, Hardware
from carmel.hardware.reader import read_hardware
from tests.unit.hardware.recorded import SERVER, unpack

_LSTOPO = shutil.which("lstopo-no-graphics") or shutil.which("lstopo")
pytestmark = pytest.mark.skipif(_LSTOPO is None, reason="lstopo is not installed (package hwloc-nox)")
_CACHE_TYPES = {"0": CacheType.UNIFIED, "1": CacheType.DATA, "2": CacheType.INSTRUCTION}


class Theirs:
    """hwloc's topology, from its XML."""

    def __init__(self, root: Path) -> None:
        assert _LSTOPO is not None
        where = [] if root == Path("/") else ["--input", str(root)]
        command = [_LSTOPO, *where, "--whole-io", "--disallowed", "--filter", "icache:all", "--of", "xml", "-"]
        text = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
        self._root = ET.fromstring(text)

    def all(self, *types: str) -> Iterator[ET.Element]:
        return (one for one in self._root.iter("object") if one.get("type") in types)

    def numbered(self, type_: str) -> list[tuple[int, tuple[int, ...]]]:
        return sorted((int(one.get("os_index", "")), cpus(one)) for one in self.all(type_))

    def distances(self) -> list[int]:
        """Row by row; empty where there is one node."""
        for one in self._root.iter("distances2"):
            if one.get("type") == "NUMANode":
                return [int(word) for values in one.iter("u64values") for word in (values.text or "").split()]
        return []


def cpus(one: ET.Element) -> tuple[int, ...]:
    """hwloc writes a set as words of 32 bits, the highest first; an empty word is 0."""
    words = one.get("cpuset", "").split(",")
    bits = 0
    for word in words:
        bits = bits << 32 | int(word or "0", 16)
    return tuple(number for number in range(bits.bit_length()) if bits >> number & 1)


@pytest.fixture(scope="module", params=["this machine", "the recorded server"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Hardware, Theirs]:
    root = Path("/") if request.param == "this machine" else unpack(SERVER, tmp_path_factory.mktemp("machine"))
    return read_hardware(root), Theirs(root)


def test_sockets_cores_and_cpus(both: tuple[Hardware, Theirs]) -> None:
    ours, theirs = both
    assert sorted((one.id, one.cpus) for one in ours.sockets) == theirs.numbered("Package")
    assert sorted(one.cpus for one in ours.cores) == sorted(cpus(one) for one in theirs.all("Core"))
    assert [(one.id, (one.id,)) for one in ours.cpus] == theirs.numbered("PU")


def test_nodes_and_distances(both: tuple[Hardware, Theirs]) -> None:
    ours, theirs = both
    assert [(one.id, one.cpus) for one in ours.nodes] == theirs.numbered("NUMANode")
    assert [one.memory_bytes for one in ours.nodes] == [
        int(one.get("local_memory", "0"))
        for one in sorted(theirs.all("NUMANode"), key=lambda one: int(one.get("os_index", "")))
    ]
    if len(ours.nodes) > 1:
        assert [distance for one in ours.nodes for distance in one.distances.values()] == theirs.distances()
    sizes = {page.get("size") for one in theirs.all("NUMANode") for page in one.iter("page_type")}
    assert {str(size) for size in (ours.page_bytes, *(pool.size_bytes for pool in ours.huge_pages))} == sizes


def test_caches(both: tuple[Hardware, Theirs]) -> None:
    ours, theirs = both
    kinds = [f"L{level}{suffix}Cache" for level in range(1, 6) for suffix in ("", "i")]
    found = [
        (
            int(one.get("depth", "")),
            _CACHE_TYPES[one.get("cache_type", "")],
            cpus(one),
            int(one.get("cache_size", "0")) or None,
            int(one.get("cache_linesize", "0")) or None,
            int(one.get("cache_associativity", "0")),
        )
        for one in theirs.all(*kinds)
    ]
    # hwloc writes 0 ways where it knows none, and -1 for a cache whose lines can be anywhere.
    assert sorted(
        (one.level, one.type, one.cpus, one.size_bytes, one.line_bytes, one.ways or 0) for one in ours.caches
    ) == sorted(one for one in found if one[5] >= 0)


def test_pci_functions(both: tuple[Hardware, Theirs]) -> None:
    ours, theirs = both
    assert {one.address: f"{one.class_code >> 8:04x} [{one.vendor:04x}:{one.device:04x}]" for one in ours.pci} == {
        one.get("pci_busid"): (one.get("pci_type") or "")[:16]
        for one in theirs.all("PCIDev", "Bridge")
        if one.get("pci_busid")
    }


def test_network_interfaces(both: tuple[Hardware, Theirs]) -> None:
    """hwloc shows some without hardware too."""
    ours, theirs = both
    found = {
        one.get("name"): info.get("value")
        for one in theirs.all("OSDev")
        for info in one.iter("info")
        if info.get("name") == "Address"
    }
    assert {one.name: one.mac for one in ours.nics}.items() <= found.items()
