"""What ``carmel run`` is told, read and checked before anything is made."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from carmel.client.objects import JsonObject
from carmel.units import parse_bytes

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PUBLISH = re.compile(
    r"(?:(?:(?P<address>[0-9.]{7,15}):)?(?P<host>\d{0,5}):)?(?P<guest>\d{1,5})(?:/(?P<protocol>tcp|udp))?"
)
_BUSES = ("virtio", "nvme", "scsi", "usb")
_MAX_USER_DATA_BYTES = 128 * 1024
_DISK_KEYS = {"name", "size", "bus", "volume", "image", "keep"}


class SizeType(click.ParamType[str]):
    """A Kubernetes quantity, kept as it was written."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_bytes(value)
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        return str(value)


class LabelType(click.ParamType[str]):
    """A name that an object can have (an RFC 1123 label)."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _LABEL.fullmatch(str(value)):
            self.fail(
                f"{value!r} is not a name: lower-case letters, digits and '-', at most 63 (such as my-vm)", param, ctx
            )
        return str(value)


class ImageNameType(click.ParamType[str]):
    """A name that an Image can have (an RFC 1123 subdomain)."""

    name = "image"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if len(str(value)) > 63 or not _SUBDOMAIN.fullmatch(str(value)):
            self.fail(
                f"{value!r} is not the name of an image, such as debian-13 (`carmel image pull URL` takes URLs)",
                param,
                ctx,
            )
        return str(value)


class PublishType(click.ParamType[JsonObject]):
    """``[[ADDRESS:]HOSTPORT:]GUESTPORT[/udp]`` as a forward of the API."""

    name = "publish"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JsonObject:
        if isinstance(value, dict):
            return value
        match = _PUBLISH.fullmatch(str(value).lower())
        if match is None:
            self.fail(f"{value!r} is not [[ADDRESS:]HOSTPORT:]GUESTPORT[/udp], such as 8080:80", param, ctx)
        forward: JsonObject = {"protocol": (match["protocol"] or "tcp").upper(), "guestPort": int(match["guest"])}
        if match["host"]:
            forward["hostPort"] = int(match["host"])
        if match["address"]:
            forward["hostAddress"] = match["address"]
        for port in (forward["guestPort"], forward.get("hostPort", 1)):
            if not 1 <= port <= 65535:
                self.fail(f"{port} is not a port: 1 to 65535", param, ctx)
        return forward


@dataclass(frozen=True, slots=True)
class DiskOption:
    """One ``--disk``. Without a name, the first one is the root disk of a VM that starts from a disk image."""

    name: str | None
    size: str | None
    bus: str | None
    volume: str | None
    image: str | None
    keep: bool

    def spec(self, name: str, image: str | None = None) -> JsonObject:
        """The disk as the API has it; ``image`` is the one that the VM starts from."""
        image = self.image or image
        wanted: JsonObject = {
            "name": name,
            "size": self.size,
            "bus": self.bus,
            "volumeRef": {"name": self.volume} if self.volume else None,
            "imageRef": {"name": image} if image and not self.volume else None,
            "deletePolicy": "Retain" if self.keep else None,
        }
        return {key: value for key, value in wanted.items() if value is not None}


class DiskType(click.ParamType[DiskOption]):
    """``size=20Gi[,name=data][,bus=nvme][,volume=NAME][,image=NAME][,keep=yes]``."""

    name = "disk"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> DiskOption:
        if isinstance(value, DiskOption):
            return value
        found: dict[str, str] = {}
        for part in str(value).split(","):
            key, equals, text = part.partition("=")
            if key not in _DISK_KEYS or not equals or not text or key in found:
                self.fail(f"{part!r} is not one of {', '.join(f'{key}=' for key in sorted(_DISK_KEYS))}", param, ctx)
            found[key] = text
        if "size" in found:
            SizeType().convert(found["size"], param, ctx)
        for key in ("name", "volume"):
            if key in found:
                LabelType().convert(found[key], param, ctx)
        if found.get("bus", "virtio") not in _BUSES:
            self.fail(f"bus must be one of {', '.join(_BUSES)}", param, ctx)
        if found.get("keep", "yes") not in {"yes", "no"}:
            self.fail("keep must be yes or no", param, ctx)
        if "volume" in found and ("size" in found or "image" in found):
            self.fail("volume= names a disk that exists: size= and image= do not go with it", param, ctx)
        return DiskOption(
            name=found.get("name"),
            size=found.get("size"),
            bus=found.get("bus"),
            volume=found.get("volume"),
            image=found.get("image"),
            keep=found.get("keep") == "yes",
        )


class UserDataType(click.ParamType[str]):
    """The text of a cloud-init user data file."""

    name = "user-data"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            with Path(str(value)).open("rb") as file:
                data = file.read(_MAX_USER_DATA_BYTES + 1)
        except OSError as exc:
            self.fail(f"{value} cannot be read: {exc.strerror}", param, ctx)
        if len(data) > _MAX_USER_DATA_BYTES:
            self.fail(f"{value} is larger than {_MAX_USER_DATA_BYTES // 1024} KiB", param, ctx)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{value} is not text", param, ctx)
        if not text.startswith(("#", "Content-Type:", "MIME-Version:")):
            self.fail(
                f"{value} is no cloud-init user data: it begins with #cloud-config, #! or a MIME header", param, ctx
            )
        return text


def options(*decorators: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[..., Callable[..., Any]]:
    """Several click options as one decorator, shown in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate
