"""``carmel ssh``: ssh to the port of the host that leads to the VM's port 22, or to the VM's own address."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import click

from carmel.cli.complete import complete_vms
from carmel.cli.keys import known_hosts_directory, own_key
from carmel.cli.power import VM_KIND
from carmel.cli.progress import Progress
from carmel.cli.session import Session, with_session
from carmel.cli.waiting import timeout_option
from carmel.client.discovery import CARMEL_API
from carmel.client.endpoint import HttpsEndpoint, UnixEndpoint
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import Refused, TimedOut

USER_ANNOTATION = "carmel.dev/ssh-user"
"""Which user of the guest the key was given to; ``carmel run`` writes it."""
_SSH_PORT = 22
_REACHED = ("nat", "bridge")
_GREETING = b"SSH-2.0-carmel\r\n"
_GREETING_SECONDS = 5.0
_PAUSE_SECONDS = 0.5


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("target", metavar="[USER@]VM", shell_complete=complete_vms)
@click.argument("command", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@click.option("-i", "--identity", metavar="FILE", help="Use this private key.")
@timeout_option("3m")
@with_session
def ssh(session: Session, *, target: str, command: tuple[str, ...], identity: str | None, timeout: float) -> None:
    """Log in to a VM by ssh, with the key that ``carmel run`` put into it. Options stand before the VM's name.

    A guest that still boots is waited for.

    \b
    carmel ssh web
    carmel ssh root@web -- systemctl status
    """
    user, _, name = target.rpartition("@")
    vm = session.client.get(session.client.discovery.find_kind(*VM_KIND), session.namespace, name)
    host, port = _way_in(vm, session)
    await_server(host, port, name, timeout)
    user = user or str(dig(vm, "metadata", "annotations", USER_ANNOTATION) or "root")
    argv = [
        *("ssh", "-p", str(port), "-l", user, "-o", "StrictHostKeyChecking=accept-new"),
        *("-o", f'UserKnownHostsFile="{_known_hosts(vm)}"', "-o", f"HostKeyAlias={name}"),
        *_identity(identity),
        *("--", host, *(command[1:] if command[:1] == ("--",) else command)),
    ]
    # ssh takes over this very process: its terminal, its exit status and its signals are then the user's own.
    try:
        os.execvp("ssh", argv)  # noqa: S606
    except FileNotFoundError as exc:
        raise Refused("ssh is not installed", code="ProgramMissing", hint="install openssh-client") from exc


def _way_in(vm: JsonObject, session: Session) -> tuple[str, int]:
    name = metadata(vm, "name")
    if dig(vm, "status", "powerState") != "PoweredOn":
        raise Refused(f"virtual machine {name!r} is not running", code="NotRunning", hint=f"carmel start {name}")
    for nic in dig(vm, "status", "networks") or []:
        for forward in nic.get("forwards") or []:
            if forward.get("guestPort") == _SSH_PORT and forward.get("protocol", "TCP") == "TCP":
                return _reachable(str(forward.get("hostAddress")), session), int(forward["hostPort"])
    address = _own_address(vm, session)
    if address is not None:
        return address, _SSH_PORT
    raise Refused(
        f"no port of the host leads to port 22 of {name!r}",
        code="NoSshForward",
        hint="add `forwards: [{guestPort: 22}]` to one of its networks; `carmel console` works without a network",
    )


def _own_address(vm: JsonObject, session: Session) -> str | None:
    """Of a NIC on a network where VMs have addresses that this host reaches, if this is the host."""
    if not isinstance(session.client.context.endpoint, UnixEndpoint):
        return None
    kind = session.client.discovery.find_kind(CARMEL_API, "Network")
    for nic in dig(vm, "status", "networks") or []:
        addresses, network = nic.get("addresses") or [], nic.get("networkName")
        if addresses and network and dig(session.client.get(kind, None, network), "spec", "provider") in _REACHED:
            return str(addresses[0])
    return None


def await_server(host: str, port: int, name: str, seconds: float) -> None:
    """Wait until an ssh server answers. The port is open long before: it is the host's, not the guest's.

    Raises ``TimedOut`` (``SshNotAnswering``).
    """
    deadline = time.monotonic() + seconds
    with Progress() as progress:
        while not _greets(host, port):
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"no ssh server answered in {name!r} within {seconds:g} s",
                    code="SshNotAnswering",
                    hint=f"carmel logs {name} shows how far it is; carmel console {name} needs no network",
                )
            progress.step(f"waiting for ssh in {name}")
            time.sleep(_PAUSE_SECONDS)


def _greets(host: str, port: int) -> bool:
    """RFC 4253, section 4.2: both sides begin with a line ``SSH-2.0-SOFTWARE``, in any order."""
    try:
        with socket.create_connection((host, port), timeout=_GREETING_SECONDS) as connection:
            connection.sendall(_GREETING)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _reachable(address: str, session: Session) -> str:
    """A port that is open on all addresses of a remote host is reached where its API is."""
    endpoint = session.client.context.endpoint
    if isinstance(endpoint, HttpsEndpoint) and address == "0.0.0.0":  # noqa: S104 - compared, not bound
        return endpoint.host
    return "127.0.0.1" if address == "0.0.0.0" else address  # noqa: S104


def _known_hosts(vm: JsonObject) -> Path:
    """A file for this very VM: one that is made anew under the same name has a key of its own, rightly."""
    directory = known_hosts_directory()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise Refused(f"{directory} cannot be made: {exc.strerror}", code="ConfigUnwritable") from exc
    return directory / metadata(vm, "uid")


def _identity(given: str | None) -> list[str]:
    if given:
        return ["-i", given, "-o", "IdentitiesOnly=yes"]
    key = own_key()
    return ["-i", str(key)] if key.exists() else []
