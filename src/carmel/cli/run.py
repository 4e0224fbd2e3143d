"""``carmel run``: from the name of an image to a running VM."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import click

from carmel.cli.apply import print_results
from carmel.cli.complete import complete_devices, complete_images, complete_networks, complete_page_sizes
from carmel.cli.images import await_image, find_image, image_kind, make_image, source_for, taken_back_on_failure
from carmel.cli.keys import public_key
from carmel.cli.options import DiskType, ImageNameType, LabelType, PublishType, SizeType, UserDataType, options
from carmel.cli.output import Output, output_option
from carmel.cli.power import VM_KIND
from carmel.cli.progress import Progress
from carmel.cli.run_manifests import VmOptions, secret_manifest, vm_manifest
from carmel.cli.session import Session, with_session
from carmel.cli.summary import forwards
from carmel.cli.text import duration
from carmel.cli.waiting import Goal, GoalType, timeout_option, wait_for
from carmel.client.discovery import CARMEL_API, ResourceType
from carmel.client.objects import JsonObject, condition, dig, metadata
from carmel.errors import AlreadyExists, NotFound, Refused


@click.command()
@options(
    click.argument("image", metavar="IMAGE", type=ImageNameType(), shell_complete=complete_images),
    click.option("--name", type=LabelType(), metavar="NAME", help="The VM's name; after the image when absent."),
    click.option("--cpus", type=click.IntRange(1, 512), default=1, show_default=True, metavar="N", help="vCPUs."),
    click.option("--memory", type=SizeType(), default="1Gi", show_default=True, metavar="SIZE", help="Memory."),
    click.option("--dedicated", is_flag=True, help="Give each vCPU a host CPU of its own."),
    click.option(
        "--page-size",
        type=SizeType(),
        metavar="SIZE",
        help="Back the memory with the host's huge pages of this size: 2Mi, 1Gi.",
        shell_complete=complete_page_sizes,
    ),
    click.option(
        "--near",
        multiple=True,
        metavar="DEVICE",
        help="Place it at the NUMA node of this device of the host: nvme0, eth0, a PCI address.",
        shell_complete=complete_devices,
    ),
    click.option("--nested", is_flag=True, help="Let the guest run VMs of its own."),
    click.option(
        "--disk",
        "disks",
        type=DiskType(),
        multiple=True,
        metavar="size=SIZE[,name=NAME][,bus=BUS][,keep=yes]",
        help="The first without a name is the root disk of a disk image; others are added. volume=NAME takes one "
        "that exists; keep=yes lets it stay when the VM is deleted.",
    ),
    click.option(
        "--network",
        default="default",
        show_default=True,
        metavar="NAME",
        help="Plug into this network, or none.",
        shell_complete=complete_networks,
    ),
    click.option(
        "-p",
        "--publish",
        "forwards",
        type=PublishType(),
        multiple=True,
        metavar="[[ADDRESS:]HOSTPORT:]PORT",
        help="A port of the host leads to a port of the VM.",
    ),
    click.option(
        "--user-data",
        "--cloud-init",
        "user_data",
        type=UserDataType(),
        metavar="FILE",
        help="cloud-init user data; kept in a Secret.",
    ),
    click.option("--ssh-key", metavar="FILE", help="Let this public key in, instead of a key of your own for VMs."),
    click.option("--ssh-user", type=LabelType(), metavar="USER", help="Who `carmel ssh` logs in as."),
    click.option("--nonce", metavar="TEXT", help="For micro: a word that the guest prints when it is up."),
    click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label the VM."),
    click.option(
        "--wait",
        "goal",
        type=GoalType(),
        default="running",
        show_default=True,
        metavar="GOAL",
        help="Wait until it is running, ready, or as for `carmel wait`.",
    ),
    click.option("--no-wait", is_flag=True, help="Return when the VM is defined."),
)
@timeout_option("15m")
@output_option()
@with_session
def run(
    session: Session,
    *,
    image: str,
    goal: Goal,
    no_wait: bool,
    timeout: float,
    output: Output | None,
    ssh_key: str | None,
    name: str | None,
    **wanted: Any,
) -> None:
    """Make a VM from an image and start it.

    IMAGE is an image you have, the name of an official one (debian, debian-13, ubuntu), or micro, a tiny guest that
    is built here in seconds. What you do not have yet is fetched or built first.

    \b
    carmel run micro
    carmel run debian --name web --cpus 2 --memory 1Gi --publish 8080:80
    carmel run micro --name w --wait=ready -o json
    """
    with Progress(quiet=output is not None) as progress:
        options = VmOptions.read(name=name or _free_name(session, image), **wanted)
        vm = _run(session, image, options, ssh_key, None if no_wait else goal, timeout, progress)
        progress.clear()
        if output is not None:
            print_results(session, [session.client.discovery.find_kind(*VM_KIND)], [vm], output)
        else:
            _tell(vm, progress, waited=not no_wait)


def _free_name(session: Session, image: str) -> str:
    """``debian``, or ``debian-2`` where there is one."""
    kind = session.client.discovery.find_kind(*VM_KIND)
    taken = {metadata(vm, "name") for vm in session.client.list(kind, session.select(kind))["items"]}
    base = image.replace(".", "-")[:56].rstrip("-")
    return next(name for name in (base, *(f"{base}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)


def _run(
    session: Session,
    image_name: str,
    wanted: VmOptions,
    ssh_key: str | None,
    goal: Goal | None,
    seconds: float,
    progress: Progress,
) -> JsonObject:
    """All that can be wrong with the wishes is found before anything is made; what failed on the way is taken back."""
    key = public_key(ssh_key) if ssh_key else None
    places = _Places.find(session)
    wanted = _checked(session, places, wanted)
    image = find_image(session, image_name)
    made_image = False
    if image is None:
        places.dry_run(session, vm_manifest(wanted, image_name, direct_kernel=False, key=None))
        image, made_image = make_image(session, image_name, source_for(image_name))
    elif dig(image, "status", "phase") == "Failed":
        raise Refused(
            f"image {image_name} failed: {dig(image, 'status', 'error', 'message')}",
            code=dig(image, "status", "error", "code"),
            hint=f"`carmel image delete {image_name}` takes it away, then run this again",
        )
    with taken_back_on_failure(session, image_kind(session), image if made_image else None):
        image = await_image(session, image_name, seconds=seconds, progress=progress)
    direct_kernel = dig(image, "status", "type") == "Kernel"
    key = None if direct_kernel else key or public_key(None)
    manifest = vm_manifest(wanted, image_name, direct_kernel=direct_kernel, key=key)
    secret = _make_secret(session, places, wanted) if wanted.user_data else None
    with taken_back_on_failure(session, places.secret, secret, always=True):
        vm = session.client.create(places.vm, session.namespace, manifest)
    if secret is not None:
        _give_secret(session, places, secret, vm)
    return _await_vm(session, places.vm, vm, goal, seconds - progress.elapsed(), progress)


@dataclass(frozen=True, slots=True)
class _Places:
    vm: ResourceType
    secret: ResourceType
    network: ResourceType

    @classmethod
    def find(cls, session: Session) -> _Places:
        find = session.client.discovery.find_kind
        return cls(find(*VM_KIND), find("v1", "Secret"), find(CARMEL_API, "Network"))

    def dry_run(self, session: Session, manifest: JsonObject) -> None:
        """Have the server check a VM before an image is fetched for it."""
        session.client.create(self.vm, session.namespace, manifest, dry_run=True)


def _checked(session: Session, places: _Places, wanted: VmOptions) -> VmOptions:
    """With what its network can do. Raises ``AlreadyExists`` if the name is taken, ``NotFound`` if the network is not
    there, a usage error for ports that it cannot publish."""
    with contextlib.suppress(NotFound):
        session.client.get(places.vm, session.namespace, wanted.name)
        raise AlreadyExists(
            f"there is a virtual machine {wanted.name!r} already",
            hint=f"take another --name, or `carmel start {wanted.name}`",
            field="metadata.name",
        )
    if wanted.network is None:
        return wanted
    provider = dig(session.client.get(places.network, None, wanted.network), "spec", "provider") or "user"
    return wanted.on(str(provider))


def _make_secret(session: Session, places: _Places, wanted: VmOptions) -> JsonObject:
    assert wanted.user_data is not None
    return session.client.create(places.secret, session.namespace, secret_manifest(wanted))


def _give_secret(session: Session, places: _Places, secret: JsonObject, vm: JsonObject) -> None:
    """The secret goes when its VM goes."""
    owner = {
        "apiVersion": places.vm.api_version,
        "kind": places.vm.kind,
        "name": metadata(vm, "name"),
        "uid": metadata(vm, "uid"),
    }
    patch = {"metadata": {"ownerReferences": [owner]}}
    session.client.patch(places.secret, session.namespace, metadata(secret, "name"), patch)


def _await_vm(
    session: Session, kind: ResourceType, vm: JsonObject, goal: Goal | None, seconds: float, progress: Progress
) -> JsonObject:
    if goal is None:
        return vm
    name = metadata(vm, "name")

    def show(now: JsonObject) -> None:
        power = dig(now, "status", "powerState")
        title = f"booting {name}" if power == "PoweredOn" else f"starting {name}"
        progress.step(title, str(condition(now, "Ready").get("message") or ""))

    progress.step(f"starting {name}")
    waited = wait_for(session.client, kind, session.namespace, name, goal, seconds=seconds, on_change=show)
    return waited or vm


def _tell(vm: JsonObject, progress: Progress, *, waited: bool) -> None:
    name = metadata(vm, "name")
    if not waited:
        click.echo(f"{name} is defined.")
        return
    addresses = ", ".join(dig(vm, "status", "addresses") or [])
    at = f" at {addresses}" if addresses else ""
    click.echo(f"{name} is {dig(vm, 'status', 'powerState')}{at} after {duration(progress.elapsed())}.")
    for one in forwards(vm):
        click.echo(f"  {one}")
    click.echo(f"Next: carmel console {name}, carmel describe vm {name}, carmel get vm")
