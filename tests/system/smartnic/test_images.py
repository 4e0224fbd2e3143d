"""Images on a SmartNIC: its administrators bring them, its host has nothing to do with them."""

from __future__ import annotations

import io

from carmel.client.objects import dig
from tests.daemon import is_ready
from tests.system.smartnic.nic import API, Nic

IMAGES = f"{API}/namespaces/default/images"
_DISK = b"\xeb\xfe" + bytes((1 << 20) - 2)


def test_an_administrator_brings_an_image_and_the_host_gets_none(nic: Nic) -> None:
    nic.create("image", {"metadata": {"name": "os"}, "spec": {"source": {"upload": {}}}})
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(_DISK))}
    with nic.client.open("PUT", f"{IMAGES}/os/upload", body=io.BytesIO(_DISK), headers=headers) as answer:
        answer.rest()
    image = nic.wait_for("image", "os", is_ready)
    assert dig(image, "status", "virtualSizeBytes") == len(_DISK)
    assert nic.as_host("GET", IMAGES).status == 403
    assert nic.as_host("GET", f"{IMAGES}/os/download").status == 403
    nic.restart()
    nic.wait_for("image", "os", is_ready)
    nic.delete("image", "os")
    nic.wait_gone("image", "os")
