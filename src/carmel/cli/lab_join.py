"""Telling a lab's host of its SmartNIC: what an administrator does with ``carmel smartnic invite``."""

from __future__ import annotations

import contextlib

from carmel.cli.images import READY
from carmel.cli.lab_clock import Clock
from carmel.cli.lab_keys import NIC_ADDRESS
from carmel.cli.lab_make import client_keys
from carmel.cli.lab_profiles import RELAY, LabMachine, Profile
from carmel.cli.progress import Progress
from carmel.cli.session import Session
from carmel.cli.waiting import wait_for
from carmel.client.api import Client
from carmel.client.discovery import CARMEL_API
from carmel.client.objects import JsonObject
from carmel.errors import NotFound

_NAMESPACE = "carmel-system"
_PORT = 17443


def join(session: Session, host: Client, profile: Profile, nic: LabMachine, clock: Clock, progress: Progress) -> None:
    """Make what is missing at ``host``, the API of the lab's host, and wait until that one is connected to ``nic``.

    ``session`` is where the lab's machines are, and their keys. Raises ``TimedOut``, and ``NotFound`` if keys are lost.
    """
    kind = host.discovery.find_kind(CARMEL_API, "SmartNIC")
    try:
        host.get(kind, None, nic.name)
    except NotFound:
        secrets = host.discovery.find_kind("v1", "Secret")
        secret = _secret(session, nic)
        # Left over from a run that was cut off.
        with contextlib.suppress(NotFound):
            host.delete(secrets, _NAMESPACE, secret["metadata"]["name"])
        host.create(secrets, _NAMESPACE, secret)
        host.create(kind, None, _smart_nic(profile, nic))
    progress.step(f"connecting {profile.host.name} with {nic.name}")
    wait_for(host, kind, None, nic.name, READY, seconds=clock.left(name=nic.name))


def _secret(session: Session, nic: LabMachine) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _secret_name(nic), "namespace": _NAMESPACE},
        "type": "kubernetes.io/tls",
        "stringData": dict(client_keys(session, nic)),
    }


def _smart_nic(profile: Profile, nic: LabMachine) -> JsonObject:
    return {
        "apiVersion": CARMEL_API,
        "kind": "SmartNIC",
        "metadata": {"name": nic.name},
        "spec": {
            "address": f"{NIC_ADDRESS}:{_PORT}",
            "credentialsSecretRef": {"name": _secret_name(nic)},
            "relayPort": profile.host.guest_port(RELAY),
        },
    }


def _secret_name(nic: LabMachine) -> str:
    return f"smartnic-{nic.name}"
