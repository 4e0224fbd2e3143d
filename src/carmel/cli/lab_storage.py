"""A lab's SmartNIC and the storage that it gives: this host is the PCIe between it and its host.

What its NVMe functions show is exported by NBD with TLS; here a Datastore leads there, and a Volume on it is what the
machine of the lab's host is plugged as a drive (docs/storage.md).
"""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import Iterator

from carmel.cli.delete import delete_one
from carmel.cli.lab_profiles import LAB_LABEL, LabMachine, Profile
from carmel.cli.power import VM_KIND
from carmel.cli.session import Session
from carmel.client.api import Client
from carmel.client.discovery import CARMEL_API
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import NotFound

NIC_SECRET = "nvme-export"  # noqa: S105 - the name of an object
"""What the NIC's daemon takes its key from (``controllers.nic.nvme.keys``)."""
_NAMESPACE = "carmel-system"
_FUNCTION = "pf0nvme"
"""Forwards to functions are called like them."""
_KEY_BYTES = 32


def share_storage(session: Session, nic: Client, profile: Profile, machine: LabMachine) -> None:
    """Give both ends one key, and say here where the functions are. ``nic`` is the API of ``machine``."""
    exports = list(_exports(session, machine))
    if not exports:
        return
    name, labels = storage_name(machine), {LAB_LABEL: profile.name}
    # One that is in use stays: who is connected comes back with it.
    key = _words(session.client, name)
    if key is None:
        key = {"username": "carmel", "psk": secrets.token_hex(_KEY_BYTES)}
        _put_secret(session.client, name, key, labels)
    if _words(nic, NIC_SECRET) != key:
        _put_secret(nic, NIC_SECRET, key, {})
    _put_datastore(session.client, name, exports, labels)


def forget_storage(session: Session, machine: LabMachine, *, seconds: float) -> None:
    """The Datastore, volumes on it, and the key."""
    client, name = session.client, storage_name(machine)
    volumes = client.discovery.find_kind(CARMEL_API, "Volume")
    for volume in client.list(volumes, session.select(volumes))["items"]:
        if dig(volume, "spec", "datastoreRef", "name") == name:
            delete_one(session, volumes, volume, seconds=seconds)
    datastores = client.discovery.find_kind(CARMEL_API, "Datastore")
    with contextlib.suppress(NotFound):
        delete_one(session, datastores, client.get(datastores, None, name), seconds=seconds)
    with contextlib.suppress(NotFound):
        client.delete(client.discovery.find_kind("v1", "Secret"), _NAMESPACE, name)


def storage_name(machine: LabMachine) -> str:
    """Of the Datastore, and of the Secret with its key."""
    return f"{machine.name}-nvme"


def _exports(session: Session, machine: LabMachine) -> Iterator[JsonObject]:
    """The functions that lead here, with the ports that this host chose."""
    kind = session.client.discovery.find_kind(*VM_KIND)
    vm = session.client.get(kind, session.namespace, machine.name)
    for nic in dig(vm, "status", "networks") or []:
        for forward in nic.get("forwards") or []:
            if str(forward.get("name", "")).startswith(_FUNCTION):
                yield {"name": forward["name"], "port": forward["hostPort"]}


def _words(client: Client, name: str) -> dict[str, str] | None:
    try:
        secret = client.get(client.discovery.find_kind("v1", "Secret"), _NAMESPACE, name)
    except NotFound:
        return None
    return {key: base64.b64decode(text).decode() for key, text in (secret.get("data") or {}).items()}


def _put_secret(client: Client, name: str, words: dict[str, str], labels: dict[str, str]) -> None:
    kind = client.discovery.find_kind("v1", "Secret")
    with contextlib.suppress(NotFound):
        client.delete(kind, _NAMESPACE, name)
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": _NAMESPACE, "labels": labels},
        "stringData": words,
    }
    client.create(kind, _NAMESPACE, body)


def _put_datastore(client: Client, name: str, exports: list[JsonObject], labels: dict[str, str]) -> None:
    kind = client.discovery.find_kind(CARMEL_API, "Datastore")
    nbd = {"address": "127.0.0.1", "tlsSecretRef": {"name": name}, "exports": exports}
    try:
        there = client.get(kind, None, name)
    except NotFound:
        made = {
            "apiVersion": CARMEL_API,
            "kind": "Datastore",
            "metadata": {"name": name, "labels": labels},
            "spec": {"type": "NBD", "nbd": nbd},
        }
        client.create(kind, None, made)
    else:
        client.patch(kind, None, metadata(there, "name"), {"spec": {"nbd": {"exports": exports}}})
