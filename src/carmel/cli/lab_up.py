"""Making a lab, or starting one again, until the Carmels in it answer and know one another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from ipaddress import ip_address

from carmel.cli.lab_clock import Clock
from carmel.cli.lab_equip import equip
from carmel.cli.lab_join import join
from carmel.cli.lab_make import Made, find, make
from carmel.cli.lab_profiles import API, RELAY, Profile
from carmel.cli.lab_storage import share_storage
from carmel.cli.power import VM_KIND, plan_start
from carmel.cli.progress import Progress
from carmel.cli.session import Session
from carmel.cli.waiting import power_goal, wait_for
from carmel.client.api import Client
from carmel.client.context_file import save_context
from carmel.client.endpoint import Context, HttpsEndpoint, UnixEndpoint
from carmel.client.objects import JsonObject, dig
from carmel.errors import CarmelError, Refused, Unavailable

_RUNNING = power_goal("running", "PoweredOn")
_PAUSE_SECONDS = 0.5
_ANSWER_SECONDS = 10.0
LOOPBACK = "127.0.0.1"


def bring_up(session: Session, profile: Profile, seconds: float, progress: Progress) -> JsonObject:
    """The lab's first machine, once the Carmel on each of them answers; their contexts are written. What failed on the
    way is taken back.

    Raises ``AlreadyExists`` if its name is that of another VM, ``TimedOut``, and what can be wrong with VM and image.
    """
    _check_near(session)
    clock = Clock(profile.host.name, seconds)
    machines = find(session, profile)
    if machines is None:
        machines = make(session, profile, clock, progress)
    else:
        _start(session, machines)
    progress.step(f"starting {profile.host.name}")
    ours = [one for one in machines if not one.machine.is_bare]
    running = [_await_running(session, one, clock) for one in ours]
    for made in ours:
        # Before it answers: who is impatient may go on and look at the console meanwhile.
        save_context(made.machine.name, _endpoint(made, profile, running[0]))
    for made in ours:
        if made.machine in profile.smart_nics and made is not ours[0]:
            with _client(ours[0], profile, running[0]) as host:
                join(session, host, profile, made.machine, clock, progress)
        with _client(made, profile, running[0]) as client:
            _await_answer(client, clock, progress)
            if made.machine in profile.smart_nics:
                share_storage(session, client, profile, made.machine)
                equip(session, client, profile, clock, progress)
    for made in machines:
        if made.machine.is_bare:
            # It has its disk from the SmartNIC, and waited for it.
            progress.step(f"starting {made.machine.name}")
            _await_running(session, made, clock)
    return running[0]


def _check_near(session: Session) -> None:
    """A lab's API is on its host's loopback: from elsewhere it could not be reached."""
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


def _start(session: Session, machines: list[Made]) -> None:
    kind = session.client.discovery.find_kind(*VM_KIND)
    for made in machines:
        session.client.patch(kind, session.namespace, made.machine.name, {"spec": plan_start(made.vm).spec})


def _await_running(session: Session, made: Made, clock: Clock) -> JsonObject:
    kind = session.client.discovery.find_kind(*VM_KIND)
    name = made.machine.name
    running = wait_for(session.client, kind, session.namespace, name, _RUNNING, seconds=clock.left(name=name))
    assert running is not None
    return running


def _endpoint(made: Made, profile: Profile, host: JsonObject) -> HttpsEndpoint:
    """A SmartNIC is reached through the relay of its host, whose VM ``host`` is; unless it is the lab's first machine
    itself."""
    forward = API if made.machine is profile.host else RELAY
    port = _host_port(host, profile.host.guest_port(forward), made.machine.name)
    return HttpsEndpoint(LOOPBACK, port, ca=made.authority, token=made.token)


def _host_port(vm: JsonObject, guest_port: int, name: str) -> int:
    for nic in dig(vm, "status", "networks") or []:
        for forward in nic.get("forwards") or []:
            if forward.get("guestPort") == guest_port:
                return int(forward["hostPort"])
    raise Unavailable(f"no port of this machine leads to the API of {name}", code="NoForward")


@contextlib.contextmanager
def _client(made: Made, profile: Profile, host: JsonObject) -> Iterator[Client]:
    client = Client(Context(made.machine.name, _endpoint(made, profile, host)))
    try:
        yield client
    finally:
        client.close()


def _await_answer(client: Client, clock: Clock, progress: Progress) -> None:
    """Until the machine's daemon says that it is ready. Everything before that looks the same from here: no answer."""
    name = client.context.name
    why = "it has not answered yet"
    while True:
        progress.step(f"booting {name}", "until its Carmel answers")
        seconds = min(_ANSWER_SECONDS, clock.left(why, name))
        try:
            client.call("GET", "/readyz", seconds=seconds)
        except CarmelError as exc:
            if not exc.retryable:
                raise
            why = exc.message
        else:
            return
        time.sleep(_PAUSE_SECONDS)
