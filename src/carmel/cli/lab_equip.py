"""What a lab's SmartNIC is to have from the start: made by its own API, as its administrators would."""

from __future__ import annotations

import contextlib

from carmel.cli.images import READY
from carmel.cli.lab_clock import Clock
from carmel.cli.lab_profiles import Profile
from carmel.cli.progress import Progress
from carmel.cli.session import Session
from carmel.cli.waiting import is_ready, wait_for
from carmel.client.api import Client
from carmel.client.discovery import CARMEL_API
from carmel.client.objects import metadata
from carmel.client.transport import Stream
from carmel.errors import AlreadyExists
from carmel.units import human_bytes

_NAMESPACE = "default"
_SECONDS = 600.0
"""For the first byte: a disk is unpacked before it is sent, and kept before it is answered for."""


def equip(session: Session, nic: Client, profile: Profile, clock: Clock, progress: Progress) -> None:
    """Make what is missing at ``nic``, the API of the lab's SmartNIC. ``session`` is where its images are."""
    for manifest in profile.on_smart_nic:
        kind = nic.discovery.find_kind(CARMEL_API, manifest["kind"])
        with contextlib.suppress(AlreadyExists):
            nic.create(kind, _NAMESPACE if kind.namespaced else None, manifest)
    for name in profile.sent_images:
        _send_image(session, nic, name, clock, progress)
    for manifest in profile.on_smart_nic:
        kind, name = nic.discovery.find_kind(CARMEL_API, manifest["kind"]), metadata(manifest, "name")
        progress.step(f"waiting for {manifest['kind']} {name}", f"on {nic.context.name}")
        namespace = _NAMESPACE if kind.namespaced else None
        wait_for(nic, kind, namespace, name, READY, seconds=clock.left(name=nic.context.name))


def _send_image(session: Session, nic: Client, name: str, clock: Clock, progress: Progress) -> None:
    images = nic.discovery.find_kind(CARMEL_API, "Image")
    if is_ready(nic.get(images, _NAMESPACE, name)):
        return
    clock.left(name=nic.context.name)
    source = session.client.discovery.find_kind(CARMEL_API, "Image").path(session.namespace, name, "download")
    with session.client.open("GET", source, seconds=_SECONDS) as disk:
        total = disk.length or 0
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(total)}
        body = _Passed(disk, total, progress, f"sending image {name} to {nic.context.name}")
        with nic.open(
            "PUT", images.path(_NAMESPACE, name, "upload"), body=body, headers=headers, seconds=_SECONDS
        ) as answer:
            answer.rest()


class _Passed:
    """An answer that is read as the body of a request."""

    def __init__(self, disk: Stream, total: int, progress: Progress, title: str) -> None:
        self._disk = disk
        self._total = total
        self._progress = progress
        self._title = title
        self._sent = 0

    def read(self, _size: int = -1, /) -> bytes:
        chunk = self._disk.chunk()
        self._sent += len(chunk)
        detail = f"{human_bytes(self._sent)} of {human_bytes(self._total)}"
        self._progress.step(self._title, detail, 100 * self._sent // max(1, self._total))
        return chunk
