"""The objects of a lab: images, networks, keys and machines, made or found again."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from carmel.cli.images import await_image, find_image, image_kind, make_image, taken_back_on_failure
from carmel.cli.lab_clock import Clock
from carmel.cli.lab_keys import Keys, make_keys, make_lone_nic_keys, make_nic_keys
from carmel.cli.lab_profiles import LAB_LABEL, SIZE_LABEL, SMART_NIC, LabMachine, Profile
from carmel.cli.power import VM_KIND
from carmel.cli.progress import Progress
from carmel.cli.session import Session
from carmel.client.contexts import choose_context
from carmel.client.discovery import CARMEL_API, ResourceType
from carmel.client.endpoint import HttpsEndpoint
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import AlreadyExists, NotFound

_AUTHORITY, _TOKEN = "ca.crt", "token"
_CLIENT = "host."
"""Before the names of a SmartNIC's ``Keys.client`` in its machine's Secret."""


@dataclass(frozen=True, slots=True)
class Made:
    """A machine's VM, and how its API is talked to; a bare one has none."""

    machine: LabMachine
    vm: JsonObject
    authority: str
    token: str = field(repr=False)


def find(session: Session, profile: Profile) -> list[Made] | None:
    """The lab's machines, if they are there.

    Raises ``AlreadyExists`` if a name is that of another VM, ``NotFound`` if only some are there, or keys are lost.
    """
    kind = session.client.discovery.find_kind(*VM_KIND)
    found = [_existing(session, kind, profile, machine) for machine in profile.machines]
    if all(vm is None for vm in found):
        return None
    missing = [machine.name for machine, vm in zip(profile.machines, found, strict=True) if vm is None]
    if missing:
        raise NotFound(
            f"{missing[0]} is missing, the rest of {profile.host.name} is there",
            code="LabIncomplete",
            hint="`carmel lab down` removes the rest, then `carmel lab up` makes a new one",
        )
    there = zip(profile.machines, found, strict=True)
    return [Made(machine, vm, *_known_keys(session, machine)) for machine, vm in there if vm is not None]


def make(session: Session, profile: Profile, clock: Clock, progress: Progress) -> list[Made]:
    """All of it. What was made is taken back if the rest cannot be."""
    client, namespace = session.client, session.namespace
    kind = client.discovery.find_kind(*VM_KIND)
    secrets = client.discovery.find_kind("v1", "Secret")
    # What is wrong with a machine is to be known before minutes are spent on its image.
    for machine in profile.machines:
        client.create(kind, namespace, machine.manifest, dry_run=True)
    for image in profile.images:
        _make_image(session, image, clock, progress)
    progress.step("making keys")
    keys = {machine.name: _new_keys(profile, machine) for machine in profile.machines if not machine.is_bare}
    made = []
    with contextlib.ExitStack() as undo:
        for manifest in (*profile.networks, *profile.volumes):
            other = client.discovery.find_kind(CARMEL_API, manifest["kind"])
            undo.enter_context(taken_back_on_failure(session, other, _put_again(session, other, manifest), always=True))
        for machine in profile.machines:
            if machine.is_bare:
                vm = client.create(kind, namespace, machine.manifest)
                undo.enter_context(taken_back_on_failure(session, kind, vm, always=True))
                made.append(Made(machine, vm, "", ""))
                continue
            own = keys[machine.name]
            secret = _put_secret(session, secrets, profile, machine, own)
            undo.enter_context(taken_back_on_failure(session, secrets, secret, always=True))
            vm = client.create(kind, namespace, machine.manifest)
            undo.enter_context(taken_back_on_failure(session, kind, vm, always=True))
            owner = {
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "name": machine.name,
                "uid": metadata(vm, "uid"),
            }
            client.patch(secrets, namespace, metadata(secret, "name"), {"metadata": {"ownerReferences": [owner]}})
            made.append(Made(machine, vm, own.authority, own.token))
    return made


def client_keys(session: Session, machine: LabMachine) -> Mapping[str, str]:
    """What the host of this SmartNIC is known to it by. Raises ``NotFound``."""
    data = _secret(session, machine)
    return {key.removeprefix(_CLIENT): text for key, text in data.items() if key.startswith(_CLIENT)}


def _existing(session: Session, kind: ResourceType, profile: Profile, machine: LabMachine) -> JsonObject | None:
    try:
        vm = session.client.get(kind, session.namespace, machine.name)
    except NotFound:
        return None
    labels = dig(vm, "metadata", "labels") or {}
    if (labels.get(LAB_LABEL), labels.get(SIZE_LABEL)) != (profile.name, profile.size):
        raise AlreadyExists(
            f"there is a virtual machine {machine.name!r} already, and it is not this lab's",
            hint="give the lab machine another --name",
        )
    return vm


def _known_keys(session: Session, machine: LabMachine) -> tuple[str, str]:
    """Authority and token of a machine that is there: out of its context, or of its Secret if that was lost."""
    if machine.is_bare:
        return "", ""
    with contextlib.suppress(NotFound):
        endpoint = choose_context(machine.name).endpoint
        if isinstance(endpoint, HttpsEndpoint) and endpoint.ca and endpoint.token:
            return endpoint.ca, endpoint.token
    data = _secret(session, machine)
    if _AUTHORITY not in data or _TOKEN not in data:
        raise _keys_lost(machine)
    return data[_AUTHORITY], data[_TOKEN]


def _secret(session: Session, machine: LabMachine) -> dict[str, str]:
    kind = session.client.discovery.find_kind("v1", "Secret")
    try:
        secret = session.client.get(kind, session.namespace, machine.secret[0])
        return {key: base64.b64decode(text).decode() for key, text in (secret.get("data") or {}).items()}
    except (NotFound, ValueError) as exc:
        raise _keys_lost(machine) from exc


def _keys_lost(machine: LabMachine) -> NotFound:
    return NotFound(
        f"{machine.name} is there, but its keys are not",
        code="KeysNotFound",
        hint="`carmel lab down` removes the machine, then `carmel lab up` makes a new one",
    )


def _make_image(session: Session, name: str, clock: Clock, progress: Progress) -> None:
    image, made_image = find_image(session, name), False
    if image is None:
        image, made_image = make_image(session, name, {"build": {"recipe": name}})
    with taken_back_on_failure(session, image_kind(session), image if made_image else None):
        await_image(session, name, seconds=clock.left(), progress=progress)


def _new_keys(profile: Profile, machine: LabMachine) -> Keys:
    if machine.role != SMART_NIC:
        return make_keys()
    # One that is the lab's first machine is talked to without a host in between.
    return make_lone_nic_keys(SMART_NIC) if machine is profile.host else make_nic_keys(SMART_NIC, profile.host.name)


def _put_again(session: Session, kind: ResourceType, manifest: JsonObject) -> JsonObject:
    """One of that name may be left over from a run that was cut off."""
    namespace = session.namespace_of(kind)
    try:
        return session.client.create(kind, namespace, manifest)
    except AlreadyExists:
        there = session.client.get(kind, namespace, metadata(manifest, "name"))
        labels = [dig(one, "metadata", "labels", LAB_LABEL) for one in (there, manifest)]
        if labels[0] != labels[1]:
            raise
        return there


def _put_secret(session: Session, kind: ResourceType, profile: Profile, machine: LabMachine, keys: Keys) -> JsonObject:
    """A Secret of that name may be left over from a run that was cut off: no VM has it, or there would be one."""
    name, key = machine.secret
    with contextlib.suppress(NotFound):
        session.client.delete(kind, session.namespace, name)
    data = {key: keys.script(), _AUTHORITY: keys.authority, _TOKEN: keys.token}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {LAB_LABEL: profile.name}},
        "stringData": data | {_CLIENT + one: text for one, text in keys.client.items()},
    }
    return session.client.create(kind, session.namespace, secret)
