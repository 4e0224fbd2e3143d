"""``carmel plan``: where VMs would go, on a machine that one has or has not."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from carmel.cli.complete import complete_boards, complete_hosts
from carmel.cli.host_api import all_vms, one_host
from carmel.cli.manifests import read_manifests
from carmel.cli.options import SizeType, options
from carmel.cli.output import Output, output_option, print_object
from carmel.cli.placement_words import cpus_in_words, nodes_in_words
from carmel.cli.session import Session, with_session
from carmel.cli.text import columns, listed, safe
from carmel.client.objects import JsonObject
from carmel.errors import Refused
from carmel.units import human_bytes, parse_bytes

if TYPE_CHECKING:
    from carmel.cli.plan_ground import Ground
    from carmel.cli.what_if import Answer, Plan


class HugePagesType(click.ParamType[tuple[int, int]]):
    """``1Gi=64``: a size in bytes, and how many."""

    name = "huge-pages"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        size, equals, count = str(value).partition("=")
        if not equals or not re.fullmatch(r"[0-9]{1,9}", count):
            self.fail(f"{value!r} is not SIZE=COUNT, such as 1Gi=64", param, ctx)
        return parse_bytes(SizeType().convert(size, param, ctx)), int(count)


@click.command()
@options(
    click.option(
        "-f", "--filename", "files", multiple=True, required=True, metavar="FILE", help="A file, directory or -."
    ),
    click.option("-R", "--recursive", is_flag=True, help="Directories with all that is below them."),
    click.option("--board", metavar="ID", help="On this board (`carmel board list`).", shell_complete=complete_boards),
    click.option("--memory", type=SizeType(), metavar="SIZE", help="With --board: how much memory it has."),
    click.option(
        "--huge-pages",
        type=HugePagesType(),
        multiple=True,
        metavar="SIZE=COUNT",
        help="With --board: so many huge pages of that size are reserved on each NUMA node.",
    ),
    click.option(
        "--sysroot",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="On the machine whose /sys and /proc lie in this folder.",
    ),
    click.option("--host", metavar="NAME", help="On this host, beside its VMs.", shell_complete=complete_hosts),
    click.option("--ascii", "only_ascii", is_flag=True, help="Draw with ASCII characters only."),
)
@output_option()
@with_session
def plan(
    session: Session,
    *,
    files: tuple[str, ...],
    recursive: bool,
    only_ascii: bool,
    output: Output | None,
    **where: Any,
) -> None:
    """Show where VMs would go: on a board, a recorded machine, or beside the VMs of a host. Nothing is made.

    VMs are placed one after the other, as the manifests have them. The exit status is 5 when one finds no place.

    \b
    carmel plan --board mt-jade-altra-max -f vms.yaml
    carmel plan --board raspberry-pi-4b --memory 4Gi -f vm.yaml
    carmel plan -f vms.yaml                     on the host that this talks to
    """
    _check(output, **where)
    from carmel.cli.plan_manifests import wanted_vms  # pydantic: after the options are known to be right
    from carmel.cli.what_if import plan_for

    wanted = wanted_vms(read_manifests(files, recursive=recursive), session.namespace)
    ground = _ground(session, **where)
    planned = plan_for(ground, wanted.vms)
    if output is not None:
        print_object(_told(ground, planned), output)
    else:
        _tell(ground, planned, only_ascii=only_ascii)
        if wanted.others:
            others = ", ".join(f"{count} {kind}" for kind, count in wanted.others.items())
            click.echo(f"Left out, since they need no place: {safe(others)}.", err=True)
    if refused := planned.refused:
        have = "has" if len(refused) == 1 else "have"
        raise Refused(
            f"{len(refused)} of {len(planned.answers)} VMs {have} no place on {ground.name}",
            code="NoPlace",
            hint="what is missing, and what would fit, is told with each",
        )


def _check(
    output: Output | None,
    *,
    board: str | None,
    memory: str | None,
    huge_pages: tuple[tuple[int, int], ...],
    sysroot: Path | None,
    host: str | None,
) -> None:
    if sum(one is not None for one in (board, sysroot, host)) > 1:
        raise click.UsageError("--board, --sysroot and --host name one machine: give one of them")
    if board is None and (memory is not None or huge_pages):
        raise click.UsageError("--memory and --huge-pages go with --board")
    if output is not None and output.form not in {"json", "yaml", "jsonpath"}:
        raise click.UsageError("plan prints a table and a picture, -o json, -o yaml or -o jsonpath=EXPRESSION")


def _ground(
    session: Session,
    *,
    board: str | None,
    memory: str | None,
    huge_pages: tuple[tuple[int, int], ...],
    sysroot: Path | None,
    host: str | None,
) -> Ground:
    from carmel.cli.plan_ground import board_ground, host_ground, recorded_ground  # hardware and placement: only here

    if board is not None:
        return board_ground(board, memory, dict(huge_pages))
    if sysroot is not None:
        return recorded_ground(sysroot)
    return host_ground(one_host(session, host), all_vms(session))


def _told(ground: Ground, planned: Plan) -> JsonObject:
    """``placement`` is as in a VM's ``status``."""
    return {
        "machine": ground.name,
        "remarks": list(ground.hardware.remarks),
        "notCounted": list(ground.uncounted),
        "virtualMachines": [_answer_object(ground, answer) for answer in planned.answers],
    }


def _answer_object(ground: Ground, answer: Answer) -> JsonObject:
    from carmel.placement.model import Refusal
    from carmel.placement.status import placement_status

    namespace, _, name = answer.request.name.rpartition("/")
    told: JsonObject = {
        "namespace": namespace,
        "name": name,
        "vcpus": answer.request.vcpus,
        "memoryBytes": answer.request.memory_bytes,
        "policy": answer.request.policy.value,
    }
    if isinstance(answer.outcome, Refusal):
        refusal = answer.outcome
        told["refusal"] = {
            "code": refusal.code,
            "message": refusal.message,
            "hint": refusal.hint,
            "permanent": refusal.permanent,
        }
    else:
        told["placement"] = placement_status(answer.outcome, ground.hardware.page_bytes).to_json()
    return told


def _tell(ground: Ground, planned: Plan, *, only_ascii: bool) -> None:
    from carmel.cli.picture_show import show_picture
    from carmel.cli.what_if_scene import scene_of_plan  # draws

    objects = [_answer_object(ground, answer) for answer in planned.answers]
    header, *lines = columns([("VM", "VCPUS", "MEMORY", "NODES", "CPUS"), *map(_row, objects)])
    click.echo(header)
    for answer, told, line in zip(planned.answers, objects, lines, strict=True):
        click.echo(line)
        for sentence in _sentences(answer, told):
            click.echo(_indented(sentence))
    click.echo()
    show_picture(scene_of_plan(ground, planned), only_ascii=only_ascii)
    for line in listed("Good to know", ground.hardware.remarks, shutil.get_terminal_size().columns):
        click.echo(line)


def _row(told: JsonObject) -> tuple[str, ...]:
    placement = told.get("placement")
    name = safe(f"{told['namespace']}/{told['name']}")
    vcpus = f"{told['vcpus']} {told['policy'].lower()}"
    memory = human_bytes(told["memoryBytes"])
    if placement is None:
        return name, vcpus, memory, "-", "no place"
    return name, vcpus, memory, nodes_in_words(placement), cpus_in_words(placement)


def _sentences(answer: Answer, told: JsonObject) -> Iterator[str]:
    """Why it goes there, or why nowhere."""
    if answer.again:
        yield "It runs there already: this is where it would go when it is started anew."
    if refusal := told.get("refusal"):
        yield str(refusal["message"])
        if refusal["hint"]:
            yield str(refusal["hint"])
        return
    yield from told["placement"].get("reasons") or ()
    if told["placement"].get("nextBest"):
        yield f"Next best: {told['placement']['nextBest']}"


def _indented(sentence: str) -> str:
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.fill(safe(sentence), width, initial_indent="    ", subsequent_indent="    ")
