"""The command line of ``carmeld``. What is not given comes from the environment, then from ``Paths``."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path

from carmel import __version__
from carmel.paths import Paths

LEVELS = ("debug", "info", "warning", "error")


class Role(StrEnum):
    """What the machine is: a host of VMs, or the Arm cores of a SmartNIC, which switches for its host and runs none."""

    HOST = "host"
    SMARTNIC = "smartnic"


@dataclass(frozen=True, slots=True)
class Options:
    """``https_port`` 0: that of the last run, or any free one. ``https_address`` is an IP address of this machine,
    or the unspecified one; ``https_names`` are DNS names and addresses that its certificate is to be good for."""

    paths: Paths
    https_port: int
    https_address: str
    https_names: tuple[str, ...]
    log_level: str
    qemu_user: str
    role: Role = Role.HOST
    nbd_address: str = "127.0.0.1"
    nbd_port: int = 10809
    """Where an emulated SmartNIC exports its first NVMe function, the next at the next port."""


def parse_options(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Options:
    """Ends the program with status 2 and the usage when they cannot be read."""
    env = os.environ if environ is None else environ
    given = _given(_parser(env), env, argv)
    return Options(
        paths=Paths(state=given.state_dir, runtime=given.run_dir, cache=given.cache_dir),
        https_port=given.https_port,
        https_address=given.https_address,
        https_names=tuple(given.https_names),
        log_level=given.log_level,
        qemu_user=given.qemu_user,
        role=Role(given.role),
        nbd_address=given.nbd_address,
        nbd_port=given.nbd_port,
    )


def _parser(env: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="carmeld",
        description="The host daemon of Carmel: serves the API and runs this host's virtual machines. On a SmartNIC: "
        "switches for its host's.",
        epilog="SIGTERM ends the daemon; its virtual machines run on and are found again by the next one.",
    )
    _add_directories(parser, Paths.from_environment(env))
    _add_https(parser, env)
    parser.add_argument(
        "--role",
        choices=[role.value for role in Role],
        default=env.get("CARMEL_ROLE", Role.HOST.value),
        help="host: runs virtual machines; smartnic: runs on a NIC's Arm cores, for its host's ($CARMEL_ROLE; "
        "default host)",
    )
    _add_nbd(parser, env)
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default=env.get("CARMEL_LOG_LEVEL", "info"),
        help="how much is logged to standard error ($CARMEL_LOG_LEVEL; default info)",
    )
    parser.add_argument(
        "--qemu-user",
        default=env.get("CARMEL_QEMU_USER", "carmel-qemu"),
        metavar="NAME",
        help="the account QEMU runs as when carmeld is root ($CARMEL_QEMU_USER; default carmel-qemu)",
    )
    parser.add_argument("--version", action="version", version=f"carmeld {__version__}")
    return parser


def _add_directories(parser: argparse.ArgumentParser, paths: Paths) -> None:
    for root, place, what in (
        ("state", paths.state, "what must last: the store, disks, keys"),
        ("run", paths.runtime, "sockets"),
        ("cache", paths.cache, "what can be made or fetched again"),
    ):
        parser.add_argument(
            f"--{root}-dir",
            type=_absolute,
            default=place,
            metavar="DIR",
            help=f"{what} (${'CARMEL_' + root.upper() + '_DIR'}; default {place})",
        )


def _add_https(parser: argparse.ArgumentParser, env: Mapping[str, str]) -> None:
    parser.add_argument(
        "--https-port",
        type=_port,
        default=env.get("CARMEL_HTTPS_PORT", "0"),
        metavar="PORT",
        help="TCP port of HTTPS; 0: that of the last run, or any free one ($CARMEL_HTTPS_PORT; default 0)",
    )
    parser.add_argument(
        "--https-address",
        type=_address,
        default=env.get("CARMEL_HTTPS_ADDRESS", "127.0.0.1"),
        metavar="ADDRESS",
        help="where HTTPS listens; 0.0.0.0 opens it to the network ($CARMEL_HTTPS_ADDRESS; default 127.0.0.1)",
    )
    parser.add_argument(
        "--https-name",
        dest="https_names",
        action="append",
        type=_name,
        metavar="NAME",
        help="a name or address that clients call this host by, for its certificate; may be repeated "
        "($CARMEL_HTTPS_NAMES, separated by commas)",
    )


def _add_nbd(parser: argparse.ArgumentParser, env: Mapping[str, str]) -> None:
    parser.add_argument(
        "--nbd-address",
        type=_address,
        default=env.get("CARMEL_NBD_ADDRESS", "127.0.0.1"),
        metavar="ADDRESS",
        help="emulated SmartNIC: where its NVMe functions are exported, by NBD with TLS ($CARMEL_NBD_ADDRESS; default "
        "127.0.0.1)",
    )
    parser.add_argument(
        "--nbd-port",
        type=_port,
        default=env.get("CARMEL_NBD_PORT", "10809"),
        metavar="PORT",
        help="emulated SmartNIC: TCP port of its first NVMe function, the next at the next port ($CARMEL_NBD_PORT; "
        "default 10809)",
    )


def _given(parser: argparse.ArgumentParser, env: Mapping[str, str], argv: Sequence[str] | None) -> argparse.Namespace:
    """What was given. Checked too is what argparse takes as it is: choices that come from the environment."""
    given = parser.parse_args(argv)
    if given.https_names is None:
        try:
            given.https_names = [_name(name) for name in env.get("CARMEL_HTTPS_NAMES", "").split(",") if name]
        except argparse.ArgumentTypeError as error:
            parser.error(f"CARMEL_HTTPS_NAMES: {error}")
    if given.log_level not in LEVELS:
        parser.error(f"CARMEL_LOG_LEVEL: invalid choice: {given.log_level!r} (choose from {', '.join(LEVELS)})")
    if given.role not in set(Role):
        parser.error(f"CARMEL_ROLE: invalid choice: {given.role!r} (choose from {', '.join(Role)})")
    return given


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address") from None


def _name(text: str) -> str:
    """An address, or a name as RFC 1123 has it."""
    if len(text) > 253 or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host name or an address")
    return text


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number") from None
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not between 0 and 65535")
    return port
