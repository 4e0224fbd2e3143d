"""Images from URLs and the catalogue, through the API's objects, from a local HTTPS server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from carmel.controllers.image_source import ImageSources
from carmel.paths import Paths
from carmel.resources.catalog import CatalogEntry
from carmel.resources.image import IMAGE
from carmel.resources.task import TASK
from carmel.resources.volume import VOLUME
from carmel.run import Command, ProgramFailed, Result, Runner, SystemRunner
from carmel.storage.files import ProcessUser
from carmel.units import GIB, MIB
from tests.micro import micro_bundle
from tests.unit.storage.https_server import Handler, Site, serve
from tests.unit.storage.world import World, open_world

RAW = bytes(510) + b"\x55\xaa" + bytes(range(256)) * 8192


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    with serve(tmp_path / "site") as served:
        monkeypatch.setenv("SSL_CERT_FILE", str(served.certificate))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield served


@pytest.fixture
async def world(tmp_path: Path, site: Site) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


def stalling(data: bytes, part: int) -> Callable[[Handler], None]:
    """An answer that sends ``part`` bytes of ``data`` and then nothing, until the test is over."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:16]}"')
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:part])
        handler.site.released.wait()

    return answer


async def test_an_image_from_a_url_is_verified_by_the_vendors_list(world: World, site: Site) -> None:
    url = site.publish("disk.img", RAW)
    await world.image("web", {"url": {"url": url, "checksumURL": site.checksum_url}})
    image = await world.until_phase(IMAGE, "web", "Ready")
    assert image["status"]["digest"] == f"sha256:{hashlib.sha256(RAW).hexdigest()}"
    assert image["status"]["origin"] == url
    assert (await world.get(TASK, image["status"]["taskName"]))["status"]["phase"] == "Succeeded"
    assert world.tmp == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")
async def test_as_root_foreign_bytes_are_read_by_a_user_without_rights(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = ProcessUser(65534, 65534)
    runner = Recording()
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)  # noqa: PTH101
        authority = Path(open_to_all) / "ca.pem"
        authority.write_bytes(site.certificate.read_bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        url = site.publish("disk.img", RAW)
        async with open_world(tmp_path, runner, user=nobody) as world:
            await world.image("web", {"url": {"url": url, "checksumURL": site.checksum_url}})
            image = await world.until_phase(IMAGE, "web", "Ready")
            disk = world.paths.default_datastore / "images" / image["metadata"]["uid"] / "disk.qcow2"
            found = disk.stat()
            assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, 65534, 0o640)
            assert world.tmp == []
            await world.volume("root", imageRef={"name": "web"})
            await world.until_phase(VOLUME, "root", "Ready")
            await world.change(VOLUME, "root", lambda one: one["spec"].update(size="1Gi"))
            await world.until(VOLUME, "root", lambda one: one["status"]["capacityBytes"] == GIB)
    assert [command.user for command in runner.commands if command.program == "qemu-img"] == [65534] * 3
    children = [str(command.argv[-1]) for command in runner.commands if command.program != "qemu-img"]
    assert children
    assert all('"user": [65534, 65534]' in words for words in children)


async def test_a_wrong_sum_keeps_nothing(world: World, site: Site) -> None:
    url = site.publish("disk.img", RAW)
    site.files["/disk.img"] = RAW[::-1]
    await world.image("web", {"url": {"url": url, "checksumURL": site.checksum_url}})
    image = await world.until_phase(IMAGE, "web", "Failed")
    assert image["status"]["error"]["code"] == "ImageDigestMismatch"
    task = await world.get(TASK, image["status"]["taskName"])
    assert (task["status"]["phase"], task["status"]["error"]["code"]) == ("Failed", "ImageDigestMismatch")
    assert world.tmp == []
    assert world.datastore_files() == set()


async def test_a_download_is_cancelled_by_its_task(world: World, site: Site) -> None:
    url = site.publish("disk.img", RAW)
    site.answers["/disk.img"] = stalling(RAW, MIB)
    await world.image("web", {"url": {"url": url, "checksumURL": site.checksum_url}})
    image = await world.until_phase(IMAGE, "web", "Downloading")
    name = image["status"]["taskName"]
    await world.change(TASK, name, lambda task: task["spec"].update(cancelRequested=True))
    image = await world.until_phase(IMAGE, "web", "Failed")
    assert image["status"]["error"]["code"] == "Cancelled"
    assert (await world.get(TASK, name))["status"]["phase"] == "Cancelled"
    assert world.tmp == []


async def test_an_image_that_is_deleted_is_not_downloaded_on(world: World, site: Site) -> None:
    url = site.publish("disk.img", RAW)
    site.answers["/disk.img"] = stalling(RAW, MIB)
    await world.image("web", {"url": {"url": url, "checksumURL": site.checksum_url}})
    await world.until_phase(IMAGE, "web", "Downloading")
    await world.delete(IMAGE, "web")
    await world.until_gone(IMAGE, "web")
    assert world.tmp == []


async def until_there(path: Path) -> None:
    async with asyncio.timeout(20):
        while not path.exists() or path.stat().st_size == 0:  # noqa: ASYNC110, ASYNC240 - a file tells nobody
            await asyncio.sleep(0.01)


async def test_another_daemon_goes_on_with_a_download(tmp_path: Path, site: Site) -> None:
    url = site.publish("disk.img", RAW)
    site.answers["/disk.img"] = stalling(RAW, MIB)
    async with open_world(tmp_path) as world:
        await world.image("web", {"url": {"url": url, "checksumURL": site.checksum_url}})
        image = await world.until_phase(IMAGE, "web", "Downloading")
        part = world.paths.default_datastore / "tmp" / f"{image['metadata']['uid']}.download" / "part"
        await until_there(part)
    del site.answers["/disk.img"]
    site.requests.clear()
    async with open_world(tmp_path) as world:
        await world.until_phase(IMAGE, "web", "Ready")
    assert any(ranged for path, ranged in site.requests if path == "/disk.img"), site.requests


class Recording:
    """Runs everything, and remembers it."""

    def __init__(self) -> None:
        self._runner: Runner = SystemRunner()
        self.commands: list[Command] = []

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        self.commands.append(command)
        return await self._runner.run(command, check=check, on_line=on_line)


class FullDisk:
    """The first conversion finds the disk full."""

    def __init__(self) -> None:
        self._runner: Runner = SystemRunner()
        self.full = True

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        if command.program == "qemu-img" and command.argv[1] == "convert" and self.full:
            self.full = False
            # Half a file, as the real program leaves it.
            (Path(str(command.cwd)) / str(command.argv[-1])).write_bytes(bytes(65536))
            raise ProgramFailed(command, Result(1, b"", b"qemu-img: error while writing: No space left on device"))
        return await self._runner.run(command, check=check, on_line=on_line)


async def test_a_disk_that_was_full_in_the_middle_is_tried_again(tmp_path: Path, site: Site) -> None:
    url = site.publish("disk.img", RAW)
    runner = FullDisk()
    async with open_world(tmp_path, runner) as world:
        await world.image("web", {"url": {"url": url, "checksumURL": site.checksum_url}})
        full = await world.until(IMAGE, "web", lambda one: one.get("status", {}).get("error"))
        assert full["status"]["error"]["code"] == "DiskFull"
        assert full["status"]["error"]["retryable"] is True
        assert not any(name.endswith("disk.qcow2") for name in world.datastore_files())
        image = await world.until_phase(IMAGE, "web", "Ready")
        assert "error" not in image["status"]
        assert world.tmp == []
    assert sum(path == "/disk.img" for path, _ in site.requests) == 1


async def test_a_catalogue_image_is_built_where_its_site_is_out_of_reach(tmp_path: Path) -> None:
    address = "https://127.0.0.1:9/disk.img"
    entry = CatalogEntry("far", "out of reach", address, address, "nobody", recipe="micro")

    def sources(paths: Paths, runner: Runner) -> ImageSources:
        return ImageSources(paths, runner, lambda _name: entry)

    # What is built for other tests need not be built again.
    bundle = await micro_bundle()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "build").symlink_to(bundle.kernel.parent.parent / "cache")
    async with open_world(tmp_path, sources=sources) as world:
        await world.image("far", {"catalog": {"name": "far", "fallback": "Build"}})
        await world.image("failing", {"catalog": {"name": "far"}})
        image = await world.until_phase(IMAGE, "far", "Ready")
        assert image["status"]["origin"] == "build:micro"
        assert image["status"]["type"] == "Kernel"
        assert image["status"]["commandLine"]
        assert f"{image['metadata']['uid']}.download" not in world.tmp
        waiting = await world.until(IMAGE, "failing", lambda one: one.get("status", {}).get("error"))
        assert waiting["status"]["error"]["code"] == "SourceUnavailable"
