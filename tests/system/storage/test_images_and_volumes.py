"""Images and volumes through the API's objects, with the real qemu-img."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.errors import CarmelError, Unavailable
from carmel.resources.base import JsonObject
from carmel.resources.image import IMAGE
from carmel.resources.task import TASK
from carmel.resources.volume import VOLUME
from carmel.storage.datastore import RESERVE_BYTES, Capacity, DirectoryDatastore
from carmel.units import GIB, MIB
from tests.unit.storage.world import World, open_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


def tool(*words: str | Path) -> bytes:
    """What a program said, which ended well."""
    return subprocess.run(words, check=True, capture_output=True, timeout=30).stdout


def disk(path: Path, image_format: str, *options: str, size: int = 32 * MIB) -> Path:
    """A disk with something in it."""
    raw = path.with_suffix(".raw-source")
    with raw.open("wb") as file:
        file.write(os.urandom(MIB))
        file.truncate(size)
    tool("qemu-img", "convert", "-f", "raw", "-O", image_format, *options, raw, path)
    return path


async def pieces(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def uploaded(world: World, name: str, data: bytes) -> JsonObject:
    await world.image(name, {"upload": {}})
    await world.until_phase(IMAGE, name, "Pending")
    await world.uploads.receive("default", name, pieces(data), len(data))
    return await world.until(IMAGE, name, lambda one: one["status"].get("phase") in ("Ready", "Failed"))


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("raw", []),
        ("qcow2", []),
        ("qcow2", ["-c"]),
        ("vmdk", ["-o", "subformat=monolithicSparse"]),
        ("vmdk", ["-o", "subformat=streamOptimized"]),
    ],
)
async def test_an_upload_becomes_an_image_of_its_own(
    world: World, tmp_path: Path, image_format: str, options: list[str]
) -> None:
    source = disk(tmp_path / "disk", image_format, *options)
    image = await uploaded(world, "one", source.read_bytes())
    assert image["status"]["phase"] == "Ready", image["status"]
    assert image["status"]["virtualSizeBytes"] == 32 * MIB
    assert image["status"]["origin"] == "upload"
    ours = world.paths.default_datastore / "images" / image["metadata"]["uid"] / "disk.qcow2"
    tool("qemu-img", "compare", "-f", "qcow2", "-F", image_format, ours, source)
    info = json.loads(tool("qemu-img", "info", "--output=json", "-f", "qcow2", ours))
    assert "backing-filename" not in info
    assert world.tmp == []
    task = await world.get(TASK, image["status"]["taskName"])
    assert task["status"]["phase"] == "Succeeded"
    assert task["status"]["progressPercent"] == 100


async def test_a_volume_stands_on_its_image_and_keeps_it(world: World, tmp_path: Path) -> None:
    await uploaded(world, "base", disk(tmp_path / "disk", "qcow2").read_bytes())
    await world.volume("root", imageRef={"name": "base"}, size="1Gi")
    volume = await world.until_phase(VOLUME, "root", "Ready")
    assert volume["status"]["capacityBytes"] == GIB
    assert volume["status"]["allocatedBytes"] <= MIB
    path = world.paths.default_datastore / "volumes" / f"{volume['metadata']['uid']}.qcow2"
    base = world.paths.default_datastore / "images" / volume["status"]["imageUID"] / "disk.qcow2"
    tool("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", path, base)

    await world.delete(IMAGE, "base")
    image = await world.until(
        IMAGE, "base", lambda one: any(c["type"] == "Deletable" for c in one["status"].get("conditions", []))
    )
    assert "root" in json.dumps(image["status"]["conditions"])
    assert base.exists()

    await world.delete(VOLUME, "root")
    await world.until_gone(VOLUME, "root")
    await world.until_gone(IMAGE, "base")
    assert world.datastore_files() == set()


async def test_a_volume_waits_for_its_image(world: World, tmp_path: Path) -> None:
    await world.volume("root", imageRef={"name": "late"})
    waiting = await world.until(VOLUME, "root", lambda one: one.get("status", {}).get("error"))
    assert waiting["status"]["error"]["code"] == "ImageNotFound"
    assert waiting["status"]["phase"] == "Pending"
    await uploaded(world, "late", disk(tmp_path / "disk", "qcow2").read_bytes())
    ready = await world.until_phase(VOLUME, "root", "Ready")
    assert ready["status"]["capacityBytes"] == 32 * MIB
    assert "error" not in ready["status"]


async def look_again(world: World, name: str) -> None:
    await world.change(VOLUME, name, lambda one: one["metadata"].update(labels={"look": "again"}))


async def test_an_empty_volume_grows(world: World) -> None:
    await world.volume("data", size="10Mi")
    await world.until_phase(VOLUME, "data", "Ready")
    await world.change(VOLUME, "data", lambda one: one["spec"].update(size="3Gi"))
    await world.until(VOLUME, "data", lambda one: one["status"].get("capacityBytes") == 3 * GIB)


async def test_a_disk_that_somebody_has_open_is_not_grown_until_it_is_free(world: World) -> None:
    await world.volume("data", size="10Mi")
    volume = await world.until_phase(VOLUME, "data", "Ready")
    path = world.paths.default_datastore / "volumes" / f"{volume['metadata']['uid']}.qcow2"
    pipe = asyncio.subprocess.PIPE
    holder = await asyncio.create_subprocess_exec("qemu-io", "-f", "qcow2", path, stdin=pipe, stdout=pipe)
    try:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"length\n")
        assert b"MiB" in await holder.stdout.readline()
        await world.change(VOLUME, "data", lambda one: one["spec"].update(size="20Mi"))
        held = await world.until(
            VOLUME, "data", lambda one: any(c["type"] == "Resized" for c in one["status"]["conditions"])
        )
        assert held["status"]["capacityBytes"] == 10 * MIB
        assert held["status"]["phase"] == "Ready"
        assert next(c for c in held["status"]["conditions"] if c["type"] == "Resized")["reason"] == "VolumeInUse"
    finally:
        await holder.communicate(b"quit\n")
    await look_again(world, "data")
    grown = await world.until(VOLUME, "data", lambda one: one["status"]["capacityBytes"] == 20 * MIB)
    assert not any(c["type"] == "Resized" for c in grown["status"]["conditions"])


async def test_a_header_that_was_tampered_with_is_not_followed(world: World, tmp_path: Path) -> None:
    await world.volume("data", size="10Mi")
    volume = await world.until_phase(VOLUME, "data", "Ready")
    path = world.paths.default_datastore / "volumes" / f"{volume['metadata']['uid']}.qcow2"
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    options = f"data_file={victim},data_file_raw=on"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "10M")
    victim.write_bytes(b"precious")
    await world.change(VOLUME, "data", lambda one: one["spec"].update(size="20Mi"))
    await world.until(VOLUME, "data", lambda one: "ImageDamaged" in str(one["status"]["conditions"]))
    assert victim.read_bytes() == b"precious"


async def test_a_volume_larger_than_its_datastore_is_refused(world: World) -> None:
    await world.volume("huge", size="60Ti")
    failed = await world.until_phase(VOLUME, "huge", "Failed")
    assert failed["status"]["error"]["code"] == "VolumeTooLarge"
    assert world.datastore_files() == set()
    await world.delete(VOLUME, "huge")
    await world.until_gone(VOLUME, "huge")


async def test_a_volume_smaller_than_its_image_is_refused(world: World, tmp_path: Path) -> None:
    await uploaded(world, "base", disk(tmp_path / "disk", "qcow2").read_bytes())
    await world.volume("small", imageRef={"name": "base"}, size="16Mi")
    failed = await world.until_phase(VOLUME, "small", "Failed")
    assert failed["status"]["error"]["code"] == "VolumeTooSmall"


async def test_a_volume_whose_file_was_lost_is_not_made_anew(world: World) -> None:
    await world.volume("data", size="10Mi")
    volume = await world.until_phase(VOLUME, "data", "Ready")
    (world.paths.default_datastore / "volumes" / f"{volume['metadata']['uid']}.qcow2").unlink()
    await look_again(world, "data")
    lost = await world.until_phase(VOLUME, "data", "Failed")
    assert lost["status"]["error"]["code"] == "DiskMissing"


async def test_an_image_comes_out_as_the_bytes_of_its_disk(world: World, tmp_path: Path) -> None:
    source = disk(tmp_path / "disk", "qcow2")
    image = await uploaded(world, "one", source.read_bytes())
    chunks, size = await world.downloads.read("default", "one")
    # What was begun goes on when the image is deleted meanwhile.
    await world.delete(IMAGE, "one")
    await world.until_gone(IMAGE, "one")
    data = b"".join([chunk async for chunk in chunks])
    assert size == len(data) == image["status"]["virtualSizeBytes"]
    assert data == (tmp_path / "disk.raw-source").read_bytes()
    assert world.tmp == []
    await world.image("later", {"upload": {}})
    with pytest.raises(CarmelError) as early:
        await world.downloads.read("default", "later")
    assert early.value.code == "ImageNotReady"


# -- hostile and broken uploads -----------------------------------------------------------------------------------
async def refused(world: World, name: str, data: bytes) -> str:
    image = await uploaded(world, name, data)
    assert image["status"]["phase"] == "Failed", image["status"]
    assert world.datastore_files() == set()
    assert world.tmp == []
    return str(image["status"]["error"]["code"])


async def test_a_backing_file_is_refused(world: World, tmp_path: Path) -> None:
    path = tmp_path / "evil.qcow2"
    tool("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", path, "1M")
    assert await refused(world, "evil", path.read_bytes()) == "ImageHasBackingFile"


async def test_an_external_data_file_is_refused(world: World, tmp_path: Path) -> None:
    path = tmp_path / "evil.qcow2"
    options = f"data_file={tmp_path}/data,data_file_raw=on"
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "1M")
    assert await refused(world, "evil", path.read_bytes()) == "ImageHasDataFile"


async def test_a_truncated_qcow2_is_refused(world: World, tmp_path: Path) -> None:
    data = disk(tmp_path / "disk", "qcow2").read_bytes()
    assert await refused(world, "cut", data[: len(data) // 2]) == "ImageDamaged"


@pytest.mark.parametrize("subformat", ["streamOptimized", "monolithicSparse"])
async def test_a_truncated_vmdk_is_refused(world: World, tmp_path: Path, subformat: str) -> None:
    data = disk(tmp_path / "disk", "vmdk", "-o", f"subformat={subformat}").read_bytes()
    assert await refused(world, "cut", data[: len(data) // 2]) == "ImageDamaged"


async def test_a_descriptor_of_other_files_is_refused(world: World) -> None:
    text = '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "/etc/shadow" 0\n'
    assert await refused(world, "evil", text.encode()) == "ImageHasExtents"


@pytest.mark.parametrize("image_format", ["qcow2", "vmdk"])
async def test_a_bomb_is_stopped_before_it_fills_the_disk(
    world: World, tmp_path: Path, image_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "ones"
    raw.write_bytes(b"\x01" * (64 * MIB))
    bomb = tmp_path / "bomb"
    options = ["-o", "subformat=streamOptimized"] if image_format == "vmdk" else ["-c"]
    tool("qemu-img", "convert", "-f", "raw", "-O", image_format, *options, raw, bomb)
    assert bomb.stat().st_size < 2 * MIB
    room = Capacity(10 * GIB, RESERVE_BYTES + 16 * MIB)
    monkeypatch.setattr(DirectoryDatastore, "capacity", lambda _self: room)
    assert await refused(world, "bomb", bomb.read_bytes()) == "ImageTooLarge"


async def test_a_disk_larger_than_the_datastore_is_refused_before_it_is_unpacked(world: World, tmp_path: Path) -> None:
    huge = tmp_path / "huge.qcow2"
    tool("qemu-img", "create", "-q", "-f", "qcow2", huge, "60T")
    assert await refused(world, "huge", huge.read_bytes()) == "ImageTooLarge"


async def test_an_error_page_is_no_disk(world: World) -> None:
    assert await refused(world, "page", b"<html><body>404</body></html>\n" * 100) == "UnknownImageFormat"


async def test_an_upload_that_breaks_off_leaves_nothing_and_can_be_sent_again(world: World, tmp_path: Path) -> None:
    data = disk(tmp_path / "disk", "qcow2").read_bytes()
    await world.image("one", {"upload": {}})
    await world.until_phase(IMAGE, "one", "Pending")

    async def broken() -> AsyncIterator[bytes]:
        yield data[:1000]
        raise Unavailable("the sender went away")

    with pytest.raises(Unavailable):
        await world.uploads.receive("default", "one", broken(), len(data))
    with pytest.raises(CarmelError) as short:
        await world.uploads.receive("default", "one", pieces(data[:1000]), len(data))
    assert short.value.code == "UploadIncomplete"
    assert world.datastore_files() == set()
    await world.uploads.receive("default", "one", pieces(data), len(data))
    await world.until_phase(IMAGE, "one", "Ready")
    with pytest.raises(CarmelError) as again:
        await world.uploads.receive("default", "one", pieces(data), len(data))
    assert again.value.code == "ImageHasBytes"


async def test_a_daemon_that_died_after_an_upload_is_followed_by_one_that_converts_it(tmp_path: Path) -> None:
    data = disk(tmp_path / "disk", "qcow2").read_bytes()
    async with open_world(tmp_path) as world:
        await world.image("one", {"upload": {}})
        await world.until_phase(IMAGE, "one", "Pending")
        receiving = asyncio.create_task(world.uploads.receive("default", "one", pieces(data), len(data)))
        await receiving
        await world.images.stop()
        # What a kill in the middle of a conversion leaves.
        leftover = world.paths.default_datastore / "tmp" / "some-uid.import.00000000"
        leftover.mkdir()
        (leftover / "disk.qcow2").write_bytes(b"half")
    async with open_world(tmp_path) as world:
        await world.until_phase(IMAGE, "one", "Ready")
        assert world.tmp == []
