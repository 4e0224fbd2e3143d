"""QEMU's guest agent: JSON lines on a virtio channel (QEMU's qga/qapi-schema.json).

The guest is not trusted. Whatever it sends is read in bounds of size and time, and believed only as text: an agent
that sends garbage, nothing, or without end is the same as none. Each question has its own connection, opened by
``guest-sync-delimited`` so that answers to somebody else's question are passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carmel.resources.virtualmachine import GuestStatus

_SECONDS = 3.0
_ANSWER_BYTES = 256 * 1024
_TEXT = 253
_MAX_ADDRESSES = 256


class AgentFailed(Exception):
    """The agent did not answer, or not as it should."""


async def status(socket: Path) -> GuestStatus | None:
    """What the guest says of itself, ``None`` if no agent answers."""
    try:
        answers = await _ask(socket, "guest-info", "guest-get-host-name", "guest-get-osinfo")
    except AgentFailed:
        return None
    info, host, system = (_mapping(answer) for answer in answers)
    return GuestStatus(
        host_name=_text(host.get("host-name")),
        os_name=_text(system.get("pretty-name")) or _text(system.get("name")),
        kernel=_text(system.get("kernel-release")),
        agent_version=_text(info.get("version")),
    )


async def addresses(socket: Path) -> dict[str, list[str]]:
    """MAC address to IP addresses, loopback and link-local ones left out; empty if no agent answers."""
    try:
        (interfaces,) = await _ask(socket, "guest-network-get-interfaces")
    except AgentFailed:
        return {}
    found: dict[str, list[str]] = {}
    for interface in interfaces[:_MAX_ADDRESSES] if isinstance(interfaces, list) else []:
        entry = _mapping(interface)
        mac = _text(entry.get("hardware-address"))
        listed = entry.get("ip-addresses")
        if mac is not None and isinstance(listed, list):
            usable = [text for item in listed[:_MAX_ADDRESSES] if (text := _address(_mapping(item)))]
            if usable:
                found.setdefault(mac.lower(), []).extend(usable)
    return found


async def _ask(socket: Path, *commands: str) -> list[Any]:
    """The answers, ``None`` for a command that the agent refused. Raises ``AgentFailed``."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=_ANSWER_BYTES)
            try:
                await _synchronise(reader, writer)
                return [await _call(reader, writer, command) for command in commands]
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (TimeoutError, OSError, EOFError, ValueError, RecursionError, asyncio.LimitOverrunError) as exc:
        raise AgentFailed(repr(exc)) from exc


async def _synchronise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything before the 0xFF that answers ours is old."""
    number = secrets.randbelow(2**31)
    writer.write(b"\xff" + _line("guest-sync-delimited", {"id": number}))
    seen = 0
    while seen < _ANSWER_BYTES:
        skipped = await reader.readuntil(b"\xff")
        seen += len(skipped)
        line = await reader.readline()
        seen += len(line)
        with contextlib.suppress(ValueError):
            if _mapping(json.loads(line)).get("return") == number:
                return
    raise EOFError("nothing but old answers")


async def _call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, command: str) -> Any:
    writer.write(_line(command, {}))
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the agent hung up")
    return _mapping(json.loads(line)).get("return")


def _line(command: str, arguments: Mapping[str, object]) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    """Printable and short, or nothing."""
    if not isinstance(value, str):
        return None
    return "".join(char for char in value[:_TEXT] if char.isprintable()) or None


def _address(item: Mapping[str, Any]) -> str | None:
    try:
        address = ipaddress.ip_address(str(item.get("ip-address"))[:64])
    except ValueError:
        return None
    return None if address.is_loopback or address.is_link_local else str(address)
