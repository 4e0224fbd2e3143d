"""The debian image: built on this machine with an empty cache, booted by UEFI, set up by cloud-init."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from carmel.run import Command, SystemRunner
from carmel.storage.build import BuildContext, DiskImage, build
from carmel.storage.build.cache import ResultCache
from carmel.storage.build.files import in_thread, locked
from tests.caches import daemons_cache
from tests.system.build.guest import Guest, booted, firmware

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


async def _seed(folder: Path, key: str) -> Path:
    """A NoCloud seed: a FAT file system labelled ``CIDATA`` (cloud-init's documentation, "NoCloud")."""
    seed = folder / "seed.img"
    with seed.open("xb") as file:
        file.truncate(1024 * 1024)
    texts = {
        "meta-data": "instance-id: i-1\nlocal-hostname: seeded\n",
        "user-data": f"#cloud-config\nssh_authorized_keys:\n  - {key}\n",
    }
    runner = SystemRunner()
    await runner.run(Command(["mkfs.vfat", "-n", "CIDATA", seed]))
    for name, text in texts.items():
        (folder / name).write_text(text)
        await runner.run(Command(["mcopy", "-i", seed, folder / name, f"::/{name}"]))
    return seed


async def _in_guest(guest: Guest, *argv: str) -> str:
    """What a program prints, by the guest agent."""
    program, *words = argv
    started = await guest.agent("guest-exec", 60, path=program, arg=words, **{"capture-output": True})
    async with asyncio.timeout(240):
        # The agent has no event for the end of a program: it can only be asked.
        while not (status := await guest.agent("guest-exec-status", 60, pid=started["pid"]))["exited"]:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    assert status["exitcode"] == 0, status
    return base64.b64decode(status.get("out-data", "")).decode()


async def test_built_from_nothing_it_boots_and_takes_its_seed(tmp_path: Path) -> None:
    for name in ("work", "output", "again", "vm"):
        (tmp_path / name).mkdir()
    told: list[int] = []
    context = BuildContext(
        SystemRunner(), tmp_path / "cache", tmp_path / "work", lambda percent, _message: told.append(percent or 0)
    )
    image = await build("debian", context, tmp_path / "output")
    assert isinstance(image, DiskImage)
    assert told[-1] == 100
    assert told == sorted(told)
    assert _names(tmp_path / "work") == []

    began = time.monotonic()
    again = await build("debian", context, tmp_path / "again")
    assert isinstance(again, DiskImage)
    assert time.monotonic() - began < 5
    assert again.path.read_bytes() == image.path.read_bytes()
    await _keep(tmp_path / "cache", image)

    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    key = Ed25519PrivateKey.generate().public_key().public_bytes(encoding, form).decode()
    # Larger than the image: the root file system has to grow.
    disk, folder = tmp_path / "disk.qcow2", tmp_path / "vm"
    backing: list[str | Path] = ["-b", image.path, "-F", "qcow2"]
    await SystemRunner().run(Command(["qemu-img", "create", "-q", "-f", "qcow2", *backing, disk, "6G"]))
    words = [
        *firmware(folder),
        *("-smp", "2"),
        *("-drive", f"if=none,id=d0,file={disk},format=qcow2", "-device", "virtio-blk-pci,drive=d0"),
        *("-drive", f"if=none,id=d1,file={await _seed(folder, key)},format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=d1"),
    ]
    async with booted(folder, words, memory="1G") as guest:
        await guest.expect(r"seeded login:", 400)
        await guest.agent("guest-ping", 120)
        await _in_guest(guest, "/usr/bin/cloud-init", "status", "--wait")
        assert await guest.agent("guest-get-host-name", 60) == {"host-name": "seeded"}
        assert key in await _in_guest(guest, "/bin/cat", "/home/debian/.ssh/authorized_keys")
        await _check_system(guest)
        await guest.power_button()
        assert await guest.ended(120) == 0


async def _keep(cache: Path, image: DiskImage) -> None:
    """For the daemons of other full tests, which would build it again; they do without."""
    (name,) = (path.name for path in (cache / "results").iterdir())
    kept = ResultCache(daemons_cache() / "build")
    async with locked(kept.lock_path(name)):
        if kept.find(name) is None:
            await in_thread(kept.put, name, image)


async def _check_system(guest: Guest) -> None:
    """No password, identity of its own, a grown root, an address, sshd and a clean package database."""
    shadow = await _in_guest(guest, "/bin/cat", "/etc/shadow")
    passwords = {line.split(":")[0]: line.split(":")[1] for line in shadow.splitlines()}
    assert all(password.startswith(("*", "!")) for password in passwords.values()), passwords
    assert len((await _in_guest(guest, "/bin/cat", "/etc/machine-id")).strip()) == 32
    assert "ssh_host_ed25519_key.pub" in await _in_guest(guest, "/bin/ls", "/etc/ssh")
    assert int((await _in_guest(guest, "/bin/df", "--output=size", "-B1", "/")).split()[-1]) > 5 * 10**9
    assert "10.0.2." in await _in_guest(guest, "/sbin/ip", "-4", "address")
    assert (await _in_guest(guest, "/bin/systemctl", "is-active", "ssh", "systemd-resolved")).split() == ["active"] * 2
    assert (await _in_guest(guest, "/usr/bin/dpkg", "--audit")) == ""
    failed = await _in_guest(guest, "/bin/systemctl", "list-units", "--failed", "--plain", "--no-legend")
    assert failed == ""
    # Kernels that come later go where systemd-boot looks.
    assert "debian-" in await _in_guest(guest, "/bin/ls", "/boot/efi/loader/entries")


async def test_cancelled_in_the_middle_it_leaves_nothing(tmp_path: Path) -> None:
    for name in ("work", "output"):
        (tmp_path / name).mkdir()
    configuring = asyncio.Event()

    def progress(percent: int | None, message: str) -> None:
        if message == "configuring packages":
            configuring.set()

    context = BuildContext(SystemRunner(), tmp_path / "cache", tmp_path / "work", progress)
    task = asyncio.create_task(build("debian", context, tmp_path / "output"))
    async with asyncio.timeout(300):
        await configuring.wait()
    assert _processes(str(tmp_path))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _names(tmp_path / "work", tmp_path / "output", tmp_path / "cache" / "results") == []
    # The kernel ends a PID namespace on its own time.
    async with asyncio.timeout(10):
        while _processes(str(tmp_path)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _names(*folders: Path) -> list[str]:
    return [str(path) for folder in folders if folder.exists() for path in folder.iterdir()]


def _processes(place: str) -> list[str]:
    """The processes whose command line, working directory or root is below ``place``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            facts = [
                (process / "cmdline").read_bytes().decode(),
                *(str((process / n).readlink()) for n in ("cwd", "root")),
            ]
        except OSError:
            continue
        if any(place in fact for fact in facts):
            found.append(process.name)
    return found
