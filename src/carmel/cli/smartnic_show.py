"""``carmel smartnic show``, and what ``carmel host`` has of SmartNICs."""

from __future__ import annotations

import shutil
import sys

import click

from carmel.cli.errors import colourful
from carmel.cli.picture_ink import ASCII, UTF8, coloured, plain
from carmel.cli.session import Session
from carmel.cli.smartnic_picture import draw_nic
from carmel.cli.smartnic_scene import nic_scene
from carmel.client.api import Selection
from carmel.client.objects import JsonObject, dig
from carmel.errors import CarmelError


def show_nics(session: Session, smart_nics: list[JsonObject], *, only_ascii: bool) -> None:
    """Draw them, an empty line between two."""
    ports, networks = _listed(session, "ports"), _listed(session, "networks")
    drawable = not only_ascii and "utf" in (sys.stdout.encoding or "").lower()
    for index, one in enumerate(smart_nics):
        if index:
            click.echo()
        scene = nic_scene(one, ports, networks)
        lines = draw_nic(scene, shutil.get_terminal_size().columns, UTF8 if drawable else ASCII)
        for line in coloured(lines) if colourful(sys.stdout) else plain(lines):
            click.echo(line)


def nics_of(session: Session, host: str) -> list[JsonObject]:
    """The SmartNICs of a host; none where the server has no such kind, or does not show it."""
    try:
        listed = session.client.list(session.client.kind("smartnics"), Selection(None)).get("items") or []
    except CarmelError:
        return []
    return [one for one in listed if dig(one, "status", "host", "name") == host]


def _listed(session: Session, word: str) -> list[JsonObject]:
    """Those that one may see."""
    try:
        found: list[JsonObject] = session.client.list(session.client.kind(word), Selection(None)).get("items") or []
    except CarmelError:
        return []
    return found
