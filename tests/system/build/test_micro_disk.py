"""The micro-disk image: UEFI boots it from an NVMe namespace, with nothing else in the machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.microdisk import micro_disk
from tests.system.build.guest import booted, firmware


async def test_boots_from_nvme_and_is_patient_with_it() -> None:
    with tempfile.TemporaryDirectory(prefix="cm-") as name:
        folder = Path(name)
        made = await micro_disk(folder)
        drive = ["-drive", f"if=none,id=d,format=qcow2,file={made.path}", "-device", "nvme,drive=d,serial=boot"]
        async with booted(folder, [*firmware(folder), *drive]) as guest:
            await guest.expect(r"carmel micro: ready nonce=- \S+ address=10\.0\.2\.", 90)
            await guest.type("cat /sys/class/nvme/nvme0/serial /sys/block/nvme0n1/queue/io_timeout; echo 'do''ne'")
            await guest.expect(r"boot\s+900000\s+done", 20)
