"""The micro image boots, says who it is and obeys its power button, by device tree and by UEFI with ACPI."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.storage.build import KernelBundle
from tests.micro import micro_bundle
from tests.system.build.guest import Guest, booted, firmware

_READY = r"carmel micro: ready nonce=(?P<nonce>\S+) boot-id=(?P<boot>[0-9a-f-]{36}) address=(?P<address>\S+)\s"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="cm-") as name:
        yield Path(name)


def _kernel(bundle: KernelBundle, extra: str) -> list[str | Path]:
    line = f"{bundle.command_line} {extra}"
    return ["-kernel", bundle.kernel, "-initrd", bundle.initrd, "-append", line]


async def _run_in_shell(guest: Guest, command: str, pattern: str) -> str:
    await guest.type(f"{command}; echo 'do''ne'")
    return (await guest.expect(rf"{pattern}[\s\S]*?done", 20)).group(0)


@pytest.mark.parametrize("uefi", [False, True], ids=["device-tree", "uefi-acpi"])
async def test_boots_answers_and_obeys_the_power_button(folder: Path, *, uefi: bool) -> None:
    nonce = secrets.token_hex(8)
    words = [*(firmware(folder) if uefi else []), *_kernel(await micro_bundle(), f"carmel.nonce={nonce}")]
    async with booted(folder, words) as guest:
        ready = await guest.expect(_READY, 60)
        assert ready["nonce"] == nonce
        assert ready["address"].startswith("10.0.2.")
        # The boot id is the kernel's own, and the shell has a terminal with job control.
        await _run_in_shell(guest, "cat /proc/sys/kernel/random/boot_id", ready["boot"])
        await _run_in_shell(guest, "tty", "/dev/ttyAMA0")
        await _run_in_shell(guest, "sleep 60 & jobs", r"\[1\]\+\s+Running")
        assert await guest.agent("guest-ping", 20) == {}
        names = [card["name"] for card in await guest.agent("guest-network-get-interfaces", 20)]
        assert "eth0" in names
        # Longer than the guest takes to look for the button: nobody has pressed it yet.
        await _run_in_shell(guest, "sleep 3; echo still' 'here", "still here")
        assert "going down" not in guest.console
        await guest.power_button()
        assert await guest.ended(30) == 0
        assert "Power down" in guest.console


async def test_names_itself_and_restarts(folder: Path) -> None:
    async with booted(folder, _kernel(await micro_bundle(), "")) as guest:
        assert (await guest.expect(_READY, 60))["nonce"] == "-"
        reply = await guest.agent("guest-get-host-name", 20)
        assert reply == {"host-name": "micro"}
        await guest.type("reboot -f")
        # -no-reboot makes QEMU end where a machine would start again.
        assert await guest.ended(30) == 0
        assert "Restarting system" in guest.console


async def test_what_is_written_to_a_data_disk_is_there(folder: Path) -> None:
    disk = folder / "disk.raw"
    disk.touch()
    with disk.open("r+b") as file:
        file.truncate(16 * 1024 * 1024)
    drive = ["-drive", f"if=none,id=d0,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=d0"]
    async with booted(folder, [*_kernel(await micro_bundle(), ""), *drive]) as guest:
        await guest.expect(_READY, 60)
        await _run_in_shell(guest, "mke2fs -F /dev/vda >/dev/null && mount /dev/vda /mnt && echo ok'ay'", "okay")
        await _run_in_shell(guest, "echo kept-by-the-disk >/mnt/note; sync; echo syn'ced'", "synced")
        guest.process.kill()
    assert b"kept-by-the-disk" in disk.read_bytes()
    async with booted(folder, [*_kernel(await micro_bundle(), "carmel.mount=vda"), *drive]) as guest:
        await guest.expect(_READY, 60)
        await _run_in_shell(guest, "cat /mnt/note", "kept-by-the-disk")
