"""What the status page tells, gathered from the host's API and a few files, none of which is secret."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from carmel.client.api import Client, Selection
from carmel.client.discovery import CARMEL_API
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import CarmelError
from carmel.paths import Paths
from carmel.run import Command, Limits, Runner

_MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """A sentence, and what to do about it."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """``addresses``: (NIC, address) of all that others can reach. ``machines``: number of VMs by power state.

    ``url`` is the API's own; ``fingerprint`` the SHA-256 of the authority's certificate, in hexadecimal.
    """

    host_name: str
    addresses: tuple[tuple[str, str], ...] = ()
    host: JsonObject = field(default_factory=dict)
    machines: tuple[tuple[str, int], ...] = ()
    url: str = ""
    fingerprint: str = ""
    problems: tuple[Problem, ...] = ()
    configuration: str = ""


async def gather(paths: Paths, runner: Runner, client: Client) -> Facts:
    """Never raises for what is missing: that is a problem to tell. ``client`` is kept: it knows the API's kinds."""
    problems: list[Problem] = []
    configuration = _firstboot(paths, problems)
    host: JsonObject = {}
    machines: dict[str, int] = {}
    try:
        find = client.discovery.find_kind
        host = next(iter(client.list(find(CARMEL_API, "Host"), Selection())["items"]), {})
        listed = client.list(find(CARMEL_API, "VirtualMachine"), Selection())["items"]
        for vm in listed:
            state = str(dig(vm, "status", "powerState") or "Unknown")
            machines[state] = machines.get(state, 0) + 1
        problems += [*_host_problems(host), *_machine_problems(listed)]
    except CarmelError as exc:
        problems.append(Problem(exc.message, "journalctl -u carmeld says why; it may still be starting"))
    return Facts(
        host_name=socket.gethostname(),
        addresses=tuple(await _addresses(runner, problems)),
        host=host,
        machines=tuple(sorted(machines.items())),
        url=next((str(one.get("url")) for one in dig(host, "status", "endpoints") or [] if one.get("url")), ""),
        fingerprint=_fingerprint(paths),
        problems=tuple(problems[:_MOST_PROBLEMS]),
        configuration=configuration,
    )


def _firstboot(paths: Paths, problems: list[Problem]) -> str:
    """What is said of ``carmel.yaml``; where it was refused, that is a problem."""
    try:
        report: Any = json.loads(paths.firstboot_report.read_bytes())
    except (OSError, ValueError):
        return ""
    message, hint = str(dig(report, "message") or ""), str(dig(report, "hint") or "")
    if dig(report, "state") == "Refused":
        problems.append(Problem(message, hint))
        return ""
    return f"{message}: {hint}" if hint else message


def _host_problems(host: JsonObject) -> Iterator[Problem]:
    if not host:
        yield Problem("the daemon does not know this host yet")
    for one in dig(host, "status", "conditions") or []:
        if one.get("type") == "Ready" and one.get("status") != "True":
            yield Problem(f"the host is not ready: {one.get('message') or one.get('reason')}")


def _machine_problems(machines: list[JsonObject]) -> Iterator[Problem]:
    """VMs that are not what they should be, and why."""
    for vm in machines:
        wanted, seen = dig(vm, "spec", "powerState") or "PoweredOn", dig(vm, "status", "powerState")
        if wanted != "PoweredOn" or seen == "PoweredOn":
            continue
        conditions = dig(vm, "status", "conditions") or []
        none: JsonObject = {}
        bad = next((one for one in conditions if one.get("status") == "False" and one.get("message")), none)
        name = f"{metadata(vm, 'namespace')}/{metadata(vm, 'name')}"
        yield Problem(f"VM {name} does not run: {bad.get('message') or seen or 'not started yet'}")


async def _addresses(runner: Runner, problems: list[Problem]) -> list[tuple[str, str]]:
    """Global addresses, by card (ip-address(8), ``-json``)."""
    try:
        result = await runner.run(Command(["ip", "-json", "address", "show", "up"], limits=Limits(seconds=5)))
        links = json.loads(result.stdout)
    except (CarmelError, ValueError):
        return []
    found = [
        (str(link.get("ifname")), str(one.get("local")))
        for link in links
        for one in link.get("addr_info") or []
        if one.get("scope") == "global" and not one.get("deprecated")
    ]
    if not found:
        cards = [str(link.get("ifname")) for link in links if link.get("link_type") == "ether"]
        seen = f"network cards: {', '.join(cards)}" if cards else "there is no network card that is up"
        problems.append(Problem("this machine has no address", f"{seen}; cable, switch, DHCP server or carmel.yaml?"))
    return found


def _fingerprint(paths: Paths) -> str:
    try:
        pem = (paths.pki / "ca.crt").read_text("ascii")
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except (OSError, ValueError):
        return ""


def reachable_urls(facts: Facts, listens_on: str | None = None) -> list[str]:
    """Where the API is to be found from elsewhere; empty where it listens on this machine alone."""
    port = facts.url.rpartition(":")[2]
    address = os.environ.get("CARMEL_HTTPS_ADDRESS", "") if listens_on is None else listens_on
    try:
        wide = ipaddress.ip_address(address)
    except ValueError:
        return []
    if not port.isdecimal() or wide.is_loopback:
        return []
    if not wide.is_unspecified:
        return [facts.url]
    # Who listens on 0.0.0.0 has no IPv6; on :: it has both.
    hosts = [one for _, one in facts.addresses if wide.version == 6 or ":" not in one]
    return [f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}" for host in hosts]
