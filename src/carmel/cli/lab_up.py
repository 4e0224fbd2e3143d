"""Making a lab machine, or starting one again: image, keys, VM, and its Carmel's first answer."""

from __future__ import annotations

import base64
import contextlib
import time
from ipaddress import ip_address

from carmel.cli.images import await_image, find_image, image_kind, make_image, taken_back_on_failure
from carmel.cli.lab_keys import Keys, make_keys
from carmel.cli.lab_profiles import LAB_LABEL, SIZE_LABEL, Profile
from carmel.cli.power import VM_KIND, plan_start
from carmel.cli.progress import Progress
from carmel.cli.session import Session
from carmel.cli.waiting import power_goal, wait_for
from carmel.client.api import Client
from carmel.client.context_file import save_context
from carmel.client.contexts import choose_context
from carmel.client.discovery import ResourceType
from carmel.client.endpoint import Context, HttpsEndpoint, UnixEndpoint
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import AlreadyExists, CarmelError, NotFound, Refused, TimedOut, Unavailable

_RUNNING = power_goal("running", "PoweredOn")
_PAUSE_SECONDS = 0.5
_ANSWER_SECONDS = 10.0
LOOPBACK = "127.0.0.1"
_AUTHORITY, _TOKEN = "ca.crt", "token"


def bring_up(session: Session, profile: Profile, seconds: float, progress: Progress) -> JsonObject:
    """The machine, once its Carmel answers; its context is written. What failed on the way is taken back.

    Raises ``AlreadyExists`` if its name is that of another VM, ``TimedOut``, and what can be wrong with VM and image.
    """
    _check_near(session)
    deadline = time.monotonic() + seconds
    kind = session.client.discovery.find_kind(*VM_KIND)
    vm = _existing(session, kind, profile)
    if vm is None:
        vm, keys = _make(session, kind, profile, deadline, progress)
        authority, token = keys.authority, keys.token
    else:
        authority, token = _known_keys(session, profile)
        session.client.patch(kind, session.namespace, profile.vm_name, {"spec": plan_start(vm).spec})
    progress.step(f"starting {profile.vm_name}")
    running = wait_for(
        session.client, kind, session.namespace, profile.vm_name, _RUNNING, seconds=_left(deadline, profile)
    )
    assert running is not None
    endpoint = HttpsEndpoint(LOOPBACK, _host_port(running, profile), ca=authority, token=token)
    # Before it answers: who is impatient may go on and look at the console meanwhile.
    save_context(profile.vm_name, endpoint)
    _await_answer(endpoint, profile, deadline, progress)
    return running


def _check_near(session: Session) -> None:
    """The machine's API is on its host's loopback: from elsewhere it could not be reached."""
    endpoint = session.client.context.endpoint
    if isinstance(endpoint, UnixEndpoint) or endpoint.host == "localhost":
        return
    with contextlib.suppress(ValueError):
        if ip_address(endpoint.host).is_loopback:
            return
    raise Refused(
        f"labs are made on this machine, and {session.client.context.name} is another one",
        code="LabNotLocal",
        hint="log in there and run `carmel lab` on it",
    )


def _existing(session: Session, kind: ResourceType, profile: Profile) -> JsonObject | None:
    try:
        vm = session.client.get(kind, session.namespace, profile.vm_name)
    except NotFound:
        return None
    labels = dig(vm, "metadata", "labels") or {}
    if (labels.get(LAB_LABEL), labels.get(SIZE_LABEL)) != (profile.name, profile.size):
        raise AlreadyExists(
            f"there is a virtual machine {profile.vm_name!r} already, and it is not this lab's",
            hint="give the lab machine another --name",
        )
    return vm


def _known_keys(session: Session, profile: Profile) -> tuple[str, str]:
    """Authority and token of a machine that is there: out of its context, or of its Secret if that was lost."""
    with contextlib.suppress(NotFound):
        endpoint = choose_context(profile.vm_name).endpoint
        if isinstance(endpoint, HttpsEndpoint) and endpoint.ca and endpoint.token:
            return endpoint.ca, endpoint.token
    try:
        secret = session.client.get(
            session.client.discovery.find_kind("v1", "Secret"), session.namespace, profile.secret[0]
        )
        authority, token = (base64.b64decode(secret["data"][key]).decode() for key in (_AUTHORITY, _TOKEN))
    except (NotFound, KeyError, ValueError) as exc:
        raise NotFound(
            f"{profile.vm_name} is there, but its keys are not",
            code="KeysNotFound",
            hint="`carmel lab down` removes the machine, then `carmel lab up` makes a new one",
        ) from exc
    return authority, token


def _make(
    session: Session, kind: ResourceType, profile: Profile, deadline: float, progress: Progress
) -> tuple[JsonObject, Keys]:
    client, namespace = session.client, session.namespace
    # What is wrong with the machine is to be known before minutes are spent on its image.
    client.create(kind, namespace, profile.manifest, dry_run=True)
    image, made_image = find_image(session, profile.image), False
    if image is None:
        image, made_image = make_image(session, profile.image, {"build": {"recipe": profile.image}})
    with taken_back_on_failure(session, image_kind(session), image if made_image else None):
        await_image(session, profile.image, seconds=_left(deadline, profile), progress=progress)
    progress.step("making keys")
    keys = make_keys()
    secret_kind = client.discovery.find_kind("v1", "Secret")
    secret = _put_secret(session, secret_kind, profile, keys)
    with taken_back_on_failure(session, secret_kind, secret, always=True):
        vm = client.create(kind, namespace, profile.manifest)
    owner = {"apiVersion": kind.api_version, "kind": kind.kind, "name": profile.vm_name, "uid": metadata(vm, "uid")}
    client.patch(secret_kind, namespace, metadata(secret, "name"), {"metadata": {"ownerReferences": [owner]}})
    return vm, keys


def _put_secret(session: Session, kind: ResourceType, profile: Profile, keys: Keys) -> JsonObject:
    """A Secret of that name may be left over from a run that was cut off: no VM has it, or there would be one."""
    name, key = profile.secret
    with contextlib.suppress(NotFound):
        session.client.delete(kind, session.namespace, name)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {LAB_LABEL: profile.name}},
        "stringData": {key: keys.script(), _AUTHORITY: keys.authority, _TOKEN: keys.token},
    }
    return session.client.create(kind, session.namespace, secret)


def _host_port(vm: JsonObject, profile: Profile) -> int:
    for nic in dig(vm, "status", "networks") or []:
        for forward in nic.get("forwards") or []:
            if forward.get("guestPort") == profile.api_port:
                return int(forward["hostPort"])
    raise Unavailable(f"no port of this machine leads to the API of {profile.vm_name}", code="NoForward")


def _await_answer(endpoint: HttpsEndpoint, profile: Profile, deadline: float, progress: Progress) -> None:
    """Until the machine's daemon says that it is ready. Everything before that looks the same from here: no answer."""
    client = Client(Context(profile.vm_name, endpoint))
    why = "it has not answered yet"
    try:
        while True:
            progress.step(f"booting {profile.vm_name}", "until its Carmel answers")
            seconds = min(_ANSWER_SECONDS, _left(deadline, profile, why))
            try:
                client.call("GET", "/readyz", seconds=seconds)
            except CarmelError as exc:
                if not exc.retryable:
                    raise
                why = exc.message
            else:
                return
            time.sleep(_PAUSE_SECONDS)
    finally:
        client.close()


def _left(deadline: float, profile: Profile, why: str = "") -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimedOut(
            f"{profile.vm_name} did not answer in time{f': {why}' if why else ''}",
            code="WaitTimedOut",
            hint=f"`carmel logs {profile.vm_name}` shows its console; run `carmel lab up` again to wait on",
        )
    return left
