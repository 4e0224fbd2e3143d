"""Disks' files, read from headers that may be hostile."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.hypervisor import layers as layers_module
from carmel.hypervisor.config import DiskConfig
from carmel.hypervisor.layers import can_be_direct, disk_layers
from carmel.resources.virtualmachine import DiskBus, DiskCache


def qcow2(path: Path, backing: str = "", image_format: str | None = "qcow2", *, features: int = 0) -> Path:
    """The header of a version 3 image: all that is looked at."""
    extension = b""
    if image_format is not None:
        name = image_format.encode()
        extension = struct.pack(">II", 0xE2792ACA, len(name)) + name.ljust((len(name) + 7) // 8 * 8, b"\0")
    extension += struct.pack(">II", 0, 0)
    offset = 104 + len(extension) if backing else 0
    header = struct.pack(">4sIQI", b"QFI\xfb", 3, offset, len(backing)).ljust(72, b"\0")
    header += struct.pack(">Q", features).ljust(28, b"\0") + struct.pack(">I", 104)
    path.write_bytes(header + extension + backing.encode())
    return path


def layers(path: Path, image_format: str = "qcow2") -> list[str]:
    disk = DiskConfig("root", DiskBus.VIRTIO, path, "qcow2" if image_format == "qcow2" else "raw", "root")
    return [f"{layer.path.name}:{layer.format}" for layer in disk_layers(disk)]


def test_a_chain_is_followed_to_its_base(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(b"")
    qcow2(tmp_path / "middle", "base", "raw")
    top = qcow2(tmp_path / "top", str(tmp_path / "middle"))
    assert layers(top) == ["top:qcow2", "middle:qcow2", "base:raw"]


def test_a_raw_disk_is_not_looked_into(tmp_path: Path) -> None:
    path = qcow2(tmp_path / "guest-wrote-this", "/etc/shadow", "raw")
    assert layers(path, "raw") == ["guest-wrote-this:raw"]


@pytest.mark.parametrize("backing", ["json:{}", "nbd://host/x", "ssh://host/x"])
def test_only_local_files_are_followed(tmp_path: Path, backing: str) -> None:
    with pytest.raises(Refused) as caught:
        layers(qcow2(tmp_path / "top", backing))
    assert caught.value.code == "BadDiskImage"


def test_a_guessed_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(b"")
    with pytest.raises(Refused) as caught:
        layers(qcow2(tmp_path / "top", "base", None))
    assert caught.value.code == "BadDiskImage"


def test_data_in_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        layers(qcow2(tmp_path / "top", features=1 << 2))
    assert "another file" in caught.value.message


def test_a_circle_is_refused(tmp_path: Path) -> None:
    qcow2(tmp_path / "a", "b")
    with pytest.raises(Refused) as caught:
        layers(qcow2(tmp_path / "b", "a"))
    assert "circle" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", b"not an image at all" * 10])
def test_a_broken_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "top"
    path.write_bytes(content)
    with pytest.raises(Refused) as caught:
        layers(path)
    assert caught.value.code == "BadDiskImage"


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        layers(qcow2(tmp_path / "top", "gone", "raw"))
    assert caught.value.code == "DiskMissing"
    assert "gone" in caught.value.message


def test_a_directory_is_no_disk(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        layers(tmp_path, "raw")
    assert caught.value.code == "BadDiskImage"


def direct(path: Path, cache: DiskCache | None) -> list[bool]:
    disk = DiskConfig("root", DiskBus.VIRTIO, path, "qcow2", "root", cache=cache)
    return [layer.direct for layer in disk_layers(disk)]


def overlay(folder: Path) -> Path:
    (folder / "base").write_bytes(b"")
    return qcow2(folder / "top", "base", "raw")


@pytest.mark.parametrize(
    ("cache", "wanted"),
    [(None, [True, False]), (DiskCache.NONE, [True, False]), (DiskCache.WRITE_BACK, [False, False])],
)
def test_the_disks_own_file_goes_past_the_page_cache_and_its_base_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: DiskCache | None, wanted: list[bool]
) -> None:
    monkeypatch.setattr(layers_module, "can_be_direct", lambda _path: True)
    assert direct(overlay(tmp_path), cache) == wanted


def test_where_the_file_system_cannot_only_who_asked_for_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers_module, "can_be_direct", lambda _path: False)
    assert direct(overlay(tmp_path), None) == [False, False]
    with pytest.raises(Refused) as caught:
        direct(overlay(tmp_path), DiskCache.NONE)
    assert (caught.value.code, caught.value.field) == ("DirectIONotPossible", "spec.disks")


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no procfs here")
def test_a_file_system_without_direct_io_is_known() -> None:
    assert not can_be_direct(Path("/proc/version"))
