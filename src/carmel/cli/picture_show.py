"""A picture on standard output: as wide as the terminal, in colour and in characters that it can show."""

from __future__ import annotations

import shutil
import sys

import click

from carmel.cli.errors import colourful
from carmel.cli.picture import draw
from carmel.cli.picture_ink import ASCII, UTF8, coloured, plain
from carmel.cli.picture_scene import Scene


def show_picture(scene: Scene, *, only_ascii: bool = False) -> None:
    drawable = not only_ascii and "utf" in (sys.stdout.encoding or "").lower()
    lines = draw(scene, shutil.get_terminal_size().columns, UTF8 if drawable else ASCII)
    for line in coloured(lines) if colourful(sys.stdout) else plain(lines):
        click.echo(line)
