"""Power: start, stop, restart, pause, resume and suspend VMs by writing what is wanted, then waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from carmel.cli.apply import print_results
from carmel.cli.complete import complete_vms
from carmel.cli.output import Output, output_option, told
from carmel.cli.progress import Progress
from carmel.cli.session import Session, with_session
from carmel.cli.waiting import Goal, power_goal, timeout_option, wait_for
from carmel.client.discovery import CARMEL_API, ResourceType
from carmel.client.objects import JsonObject, condition, dig, metadata
from carmel.errors import Refused

VM_KIND = (CARMEL_API, "VirtualMachine")


@dataclass(frozen=True, slots=True)
class Change:
    """What is written into a VM's spec, what is waited for then, and how that is told."""

    spec: JsonObject
    goal: Goal
    doing: str
    done: str


Planner = Callable[[JsonObject], Change]


def _vm_command(default_timeout: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            with_session,
            output_option(),
            timeout_option(default_timeout),
            click.option("--wait/--no-wait", "wait", default=True, help="Wait for it (the default), or only ask."),
            click.argument("names", metavar="VM...", nargs=-1, required=True, shell_complete=complete_vms),
        ):
            function = option(function)
        return function

    return decorate


@click.command()
@_vm_command("5m")
def start(session: Session, **options: Any) -> None:
    """Start VMs. One that ended by itself is started again.

    \b
    carmel start web
    """
    _change_all(session, plan_start, **options)


@click.command()
@click.option("--force", is_flag=True, help="Power off at once, without asking the guest.")
@_vm_command("5m")
def stop(session: Session, *, force: bool, **options: Any) -> None:
    """Ask the guest to shut down; one that does not within its time is powered off.

    \b
    carmel stop web
    carmel stop web --force            pull the plug
    """

    def plan(vm: JsonObject) -> Change:
        mode = "Hard" if force else _gentle_mode(vm)
        return _power("PoweredOff", "stopping", "stopped", powerOffMode=mode)

    _change_all(session, plan, **options)


@click.command()
@_vm_command("5m")
def restart(session: Session, **options: Any) -> None:
    """Stop VMs and start them again.

    \b
    carmel restart web
    """
    _change_all(session, _plan_restart, **options)


@click.command()
@_vm_command("1m")
def pause(session: Session, **options: Any) -> None:
    """Freeze the vCPUs of VMs. Their memory stays where it is.

    \b
    carmel pause web
    """
    _change_all(session, lambda vm: _running_only(vm, _power("Paused", "pausing", "paused")), **options)


@click.command()
@_vm_command("2m")
def resume(session: Session, **options: Any) -> None:
    """Let paused or suspended VMs go on.

    \b
    carmel resume web
    """
    _change_all(session, lambda _vm: _power("PoweredOn", "resuming", "running"), **options)


@click.command()
@_vm_command("5m")
def suspend(session: Session, **options: Any) -> None:
    """Save the memory of VMs to disk and stop them. ``carmel resume`` goes on from there.

    \b
    carmel suspend web
    """
    _change_all(session, lambda vm: _running_only(vm, _power("Suspended", "suspending", "suspended")), **options)


def _power(state: str, doing: str, done: str, **more: Any) -> Change:
    return Change({"powerState": state, **more}, power_goal(done, state), doing, done)


def _gentle_mode(vm: JsonObject) -> str:
    """The VM's own mode, unless an earlier ``stop --force`` left Hard behind."""
    mode = dig(vm, "spec", "powerOffMode")
    return mode if mode in {"Soft", "TrySoft"} else "TrySoft"


def _running_only(vm: JsonObject, change: Change) -> Change:
    if dig(vm, "status", "powerState") == "PoweredOff":
        name = metadata(vm, "name")
        raise Refused(f"virtual machine {name!r} is not running", code="NotRunning", hint=f"carmel start {name}")
    return change


def plan_start(vm: JsonObject) -> Change:
    """A VM that should run but has ended is not started by a wish it already has: that takes a new request."""
    ended = dig(vm, "spec", "powerState") == "PoweredOn" and dig(vm, "status", "powerState") == "PoweredOff"
    more = {"restartRequestedAt": now()} if ended else {}
    return _power("PoweredOn", "starting", "running", **more)


def _plan_restart(vm: JsonObject) -> Change:
    requested = now()
    change = _power("PoweredOn", "restarting", "restarted", restartRequestedAt=requested)
    was = dig(vm, "status", "launchID")

    def restarted(obj: JsonObject | None) -> bool:
        started = dig(obj, "status", "restartedAt")
        return change.goal.holds(obj) and ((started or "") >= requested or dig(obj, "status", "launchID") != was)

    return Change(change.spec, Goal("restarted", restarted), change.doing, change.done)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _change_all(
    session: Session, plan: Planner, *, names: tuple[str, ...], wait: bool, timeout: float, output: Output | None
) -> None:
    """All are looked up and planned first: a wrong name among many changes nothing."""
    kind = session.client.discovery.find_kind(*VM_KIND)
    planned = [(name, plan(session.client.get(kind, session.namespace, name))) for name in names]
    results = []
    for name, change in planned:
        results.append(session.client.patch(kind, session.namespace, name, {"spec": change.spec}))
    with Progress(quiet=output is not None) as progress:
        for index, (name, change) in enumerate(planned):
            if wait:
                results[index] = _wait(session, kind, name, change, timeout, progress) or results[index]
            if output is None:
                progress.clear()
                click.echo(f"{told(kind, name)} {change.done if wait else change.doing}")
    if output is not None:
        print_results(session, [kind] * len(results), results, output)


def _wait(
    session: Session, kind: ResourceType, name: str, change: Change, seconds: float, progress: Progress
) -> JsonObject | None:
    def show(vm: JsonObject) -> None:
        progress.step(f"{change.doing} {name}", str(condition(vm, "Ready").get("message") or ""))

    return wait_for(session.client, kind, session.namespace, name, change.goal, seconds=seconds, on_change=show)
