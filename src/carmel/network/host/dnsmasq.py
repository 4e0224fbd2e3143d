"""DHCP and DNS of a nat network: one dnsmasq(8) each, on its bridge only.

It is started to be a daemon: what it cannot do it says before it goes to the background. A later Carmel knows it by its
process id file and its arguments: with the same arguments it is kept, with others it is replaced. Who gets which
address is in a file that it reads again at SIGHUP.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import select
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import Refused, Unavailable
from carmel.network.dataplane import NatPlan, PortPlan
from carmel.run import Command, Limits, ProgramFailed, Runner

_PROGRAM = "dnsmasq"
_LEASE = "1h"
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DhcpPlan:
    """What one dnsmasq is to do. ``reservations``: MAC address to IP address."""

    bridge: str
    nat: NatPlan
    mtu: int
    reservations: Mapping[str, ipaddress.IPv4Address]


def dhcp_plan(bridge: str, nat: NatPlan, mtu: int, ports: Sequence[PortPlan]) -> DhcpPlan:
    reserved = {port.mac: one for port in ports for one in port.addresses[:1] if isinstance(one, ipaddress.IPv4Address)}
    return DhcpPlan(bridge, nat, mtu, reserved)


class Dnsmasq:
    """``folder`` is readable for everybody: dnsmasq gives its privileges up. Used by one call at a time."""

    def __init__(self, runner: Runner, folder: Path, namespace: Path | None = None) -> None:
        self._runner = runner
        self._folder = folder
        self._into = [] if namespace is None else ["nsenter", f"--net={namespace}", "--"]

    async def ensure(self, wanted: DhcpPlan) -> None:
        """Raises ``Refused`` (``ProgramMissing``, ``DhcpPortInUse``) or ``Unavailable``."""
        try:
            changed = await asyncio.to_thread(self._write_reservations, wanted)
        except OSError as exc:
            raise Unavailable(f"cannot note the addresses of {wanted.nat.subnet}: {exc.strerror}") from exc
        arguments = self._arguments(wanted)
        pid = await asyncio.to_thread(self._running, wanted.bridge)
        if pid is not None and await asyncio.to_thread(_arguments_of, pid) == arguments:
            if changed:
                await asyncio.to_thread(self._signal, wanted.bridge, signal.SIGHUP)
            return
        await asyncio.to_thread(self._end, wanted.bridge)
        try:
            await self._runner.run(Command([*self._into, _PROGRAM, *arguments], limits=Limits(seconds=20)))
        except ProgramFailed as exc:
            raise _explained(wanted, exc) from exc

    async def stop(self, bridge: str) -> None:
        """Until it is gone, with all that it knew."""
        await asyncio.to_thread(self._stop, bridge)

    async def end(self, bridge: str) -> None:
        """Until it is gone; the next one takes its leases over."""
        await asyncio.to_thread(self._end, bridge)

    async def stop_all_but(self, bridges: Collection[str]) -> None:
        for file in await asyncio.to_thread(lambda: sorted(self._folder.glob("*.pid"))):
            if file.stem not in bridges:
                await self.stop(file.stem)

    async def leases(self, bridge: str) -> Mapping[str, ipaddress.IPv4Address]:
        """Who has which address at the moment, by MAC address."""
        return await asyncio.to_thread(self._leases, bridge)

    # -- files ----------------------------------------------------------------------------------------------------
    def _file(self, bridge: str, kind: str) -> Path:
        return self._folder / f"{bridge}.{kind}"

    def _write_reservations(self, wanted: DhcpPlan) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(wanted.bridge, "hosts")
        text = "".join(f"{mac},{address}\n" for mac, address in sorted(wanted.reservations.items()))
        with contextlib.suppress(FileNotFoundError):
            if file.read_text() == text:
                return False
        part = file.with_suffix(".part")
        part.write_text(text)
        part.chmod(0o644)
        part.replace(file)
        return True

    def _leases(self, bridge: str) -> dict[str, ipaddress.IPv4Address]:
        """Each line: expiry, MAC, address, name, client id (dnsmasq(8), ``--dhcp-leasefile``)."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self._file(bridge, "leases").read_text().splitlines():
                words = line.split()
                if len(words) >= 4:
                    with contextlib.suppress(ValueError):
                        found[words[1].lower()] = ipaddress.IPv4Address(words[2])
        return found

    def _arguments(self, wanted: DhcpPlan) -> list[str]:
        subnet, bridge = wanted.nat.subnet, wanted.bridge
        words = [
            "--conf-file=/dev/null", f"--interface={bridge}", "--except-interface=lo", "--bind-interfaces",
            f"--pid-file={self._file(bridge, 'pid')}", "--no-hosts", "--domain-needed", "--bogus-priv",
        ]  # fmt: skip
        if wanted.nat.dhcp:
            words += [
                f"--dhcp-range={subnet.network_address},static,{subnet.netmask},{_LEASE}",
                f"--dhcp-hostsfile={self._file(bridge, 'hosts')}", f"--dhcp-leasefile={self._file(bridge, 'leases')}",
                f"--dhcp-lease-max={subnet.num_addresses}", f"--dhcp-option-force=option:mtu,{wanted.mtu}",
                "--dhcp-authoritative", "--no-ping", "--quiet-dhcp",
            ]  # fmt: skip
        return words

    # -- the process ----------------------------------------------------------------------------------------------
    def _running(self, bridge: str) -> int | None:
        """Its process id, if the process that has it now is a dnsmasq of ours."""
        try:
            pid = int(self._file(bridge, "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if f"--pid-file={self._file(bridge, 'pid')}" in (_arguments_of(pid) or ()) else None

    def _signal(self, bridge: str, number: int) -> None:
        with contextlib.suppress(ProcessLookupError), _pidfd(self._running(bridge)) as fd:
            # Looked at again, now that the id cannot become another's.
            if fd is not None and self._running(bridge) is not None:
                signal.pidfd_send_signal(fd, number)

    def _stop(self, bridge: str) -> None:
        self._end(bridge)
        for kind in ("pid", "hosts", "leases", "part"):
            self._file(bridge, kind).unlink(missing_ok=True)

    def _end(self, bridge: str) -> None:
        with contextlib.suppress(ProcessLookupError), _pidfd(self._running(bridge)) as fd:
            if fd is not None and self._running(bridge) is not None:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    signal.pidfd_send_signal(fd, number)
                    if select.select([fd], [], [], _END_SECONDS)[0]:
                        break


@contextlib.contextmanager
def _pidfd(pid: int | None) -> Iterator[int | None]:
    if pid is None:
        yield None
        return
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def _arguments_of(pid: int) -> list[str] | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return words[1:-1]


def _explained(wanted: DhcpPlan, exc: ProgramFailed) -> Refused | Unavailable:
    words = exc.result.last_words
    if "in use" in words:
        return Refused(
            f"another DHCP or DNS server of this host has the ports that {wanted.nat.gateway} needs",
            code="DhcpPortInUse",
            hint="let it listen on its own interfaces only (dnsmasq: bind-interfaces); ss -lnup says who it is",
        )
    return Unavailable(f"DHCP for {wanted.nat.subnet} does not start: {exc.message}", code="DhcpFailed")
