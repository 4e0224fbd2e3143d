"""The kernel's packet generator (pktgen.rst in its documentation) in a guest: frames of any size, VLAN and source.

The micro guest has no such module. It comes as the blocks of a disk, out of the lab machine, whose kernel is the same.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

from carmel.client.objects import JsonObject
from tests.system.lab.machine import LabMachine

IMAGE = "pktgen"
_OFFSET = 4096
DISK: JsonObject = {"name": "tools", "imageRef": {"name": IMAGE}}
_MODULE = "/tmp/pktgen.ko"


def make_image(host: LabMachine, folder: Path) -> int:
    """The image, on ``host``. Answers the module's size in bytes."""
    encoded = host.shell("base64 $(find /lib/modules -name pktgen.ko) | tr -d '\\n' | fold -w 500; echo")
    module = base64.b64decode("".join(re.findall(r"\S+", encoded)))
    raw = folder / "pktgen.raw"
    # Not at its beginning: a file that begins as a program does is taken for one.
    raw.write_bytes((bytes(_OFFSET) + module).ljust(1 << 20, b"\0"))
    host.cli("--context", host.name, "image", "import", str(raw), "--name", IMAGE)
    return len(module)


def load(host: LabMachine, vm: str, module_bytes: int) -> None:
    """Into a guest that has ``DISK`` as its only disk."""
    host.guest_shell(vm, f"tail -c +{_OFFSET + 1} /dev/vda | head -c {module_bytes} >{_MODULE}; insmod {_MODULE}")


def script(link: str, *settings: str) -> str:
    """Sends as pktgen's own words say (``count 100``); ends when all are sent."""
    words = " ".join(f'"{setting}"' for setting in settings)
    return f"""
cd /proc/net/pktgen
echo rem_device_all >kpktgend_0; echo add_device {link} >kpktgend_0
for word in {words}; do
echo "$word" >{link}; done
echo start >pgctrl; grep -E 'Result|errors' {link}
"""
