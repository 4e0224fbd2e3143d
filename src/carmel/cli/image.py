"""``carmel image``: images and where they come from."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import click

from carmel.cli.apply import print_results
from carmel.cli.complete import complete_images
from carmel.cli.delete import confirm, delete_one
from carmel.cli.download import download
from carmel.cli.images import await_image, image_kind, make_image, manifest, taken_back_on_failure
from carmel.cli.options import ImageNameType, options
from carmel.cli.output import Output, TablePrinter, output_option, print_object, told
from carmel.cli.progress import Progress
from carmel.cli.session import Session, with_session
from carmel.cli.text import columns, duration
from carmel.cli.upload import upload
from carmel.cli.waiting import timeout_option
from carmel.client.objects import JsonObject, dig
from carmel.errors import AlreadyExists, Refused
from carmel.resources.catalog import CATALOG

_waiting = options(
    click.option("--wait/--no-wait", "wait", default=True, help="Wait until it is ready (the default)."),
    timeout_option("1h"),
    output_option(),
)


@click.group()
def image() -> None:
    """Images: templates that VMs start from.

    \b
    carmel image pull debian-13
    carmel image list
    """


@image.command()
@click.argument("source", metavar="NAME|URL")
@click.option("--name", type=ImageNameType(), metavar="NAME", help="The image's name here; by default the source's.")
@click.option("--checksum-url", metavar="URL", help="For a URL: the vendor's file of SHA-256 or SHA-512 sums.")
@click.option("--checksum", metavar="ALGORITHM:HEX", help="For a URL: the sum itself, such as sha256:...")
@click.option("--fallback/--no-fallback", default=True, help="Build what the network does not have (the default).")
@_waiting
@with_session
def pull(
    session: Session,
    *,
    source: str,
    name: str | None,
    checksum_url: str | None,
    checksum: str | None,
    fallback: bool,
    wait: bool,
    timeout: float,
    output: Output | None,
) -> None:
    """Get an official cloud image by its name, or any disk image from an https:// URL.

    \b
    carmel image pull debian-13
    carmel image pull https://example.org/disk.qcow2 --checksum-url https://example.org/SHA256SUMS
    """
    if "://" in source:
        if (checksum_url is None) == (checksum is None):
            raise click.UsageError("a URL needs --checksum-url or --checksum, so that it can be verified")
        origin: JsonObject = {"url": source}
        origin.update({"checksumURL": checksum_url} if checksum_url else {"checksum": checksum})
        spec: JsonObject = {"url": origin}
        name = name or _name_from(source.split("?", maxsplit=1)[0].rsplit("/", 1)[-1])
    else:
        if checksum_url or checksum:
            raise click.UsageError("--checksum-url and --checksum go with a URL: the catalogue has its own")
        spec = {"catalog": {"name": source, "fallback": "Build" if fallback else "Fail"}}
        name = name or _name_from(source)
    _make(session, name, spec, wait=wait, timeout=timeout, output=output)


@image.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("--name", type=ImageNameType(), metavar="NAME", help="The image's name; by default the recipe's.")
@click.option("--mirror", metavar="URL", help="Take Debian's packages from here.")
@_waiting
@with_session
def build(
    session: Session,
    *,
    recipe: str,
    name: str | None,
    mirror: str | None,
    wait: bool,
    timeout: float,
    output: Output | None,
) -> None:
    """Build an image from Debian's packages: micro (seconds), debian or host (minutes).

    \b
    carmel image build micro
    """
    spec: JsonObject = {"build": {"recipe": recipe, **({"mirror": mirror} if mirror else {})}}
    _make(session, name or _name_from(recipe), spec, wait=wait, timeout=timeout, output=output)


@image.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", type=ImageNameType(), metavar="NAME", help="The image's name; by default the file's.")
@_waiting
@with_session
def import_(
    session: Session, *, file: Path, name: str | None, wait: bool, timeout: float, output: Output | None
) -> None:
    """Send a disk image (raw, qcow2 or vmdk) from this machine. It is checked before it can be used.

    \b
    carmel image import ./disk.vmdk --name old-server
    """
    name = name or _name_from(file.name)
    with Progress(quiet=output is not None) as progress:
        made, created = make_image(session, name, {"upload": {}})
        if not created and dig(made, "status", "phase") == "Ready":
            raise Refused(f"there is an image {name!r} already", code="AlreadyExists", hint="take another --name")
        with taken_back_on_failure(session, image_kind(session), made if created else None, always=True):
            upload(session, name, file, progress)
            if wait:
                made = await_image(session, name, seconds=timeout, progress=progress)
        _tell(session, made, progress, output, ready=wait)


@image.command()
@click.argument("name", metavar="NAME", shell_complete=complete_images)
@click.option("--to", "target", required=True, metavar="FILE|-", help="A new file, a drive, or - for standard output.")
@click.option("--force", is_flag=True, help="Overwrite what is there: an existing file, or a whole drive.")
@with_session
def export(session: Session, *, name: str, target: str, force: bool) -> None:
    """Write a disk image as raw bytes: what an SSD, a USB stick or another hypervisor takes.

    \b
    carmel image export host --to host.img
    carmel image export host --to - | ssh other 'dd of=/dev/sdX bs=4M conv=fsync'
    """
    with Progress(quiet=target == "-") as progress:
        download(session, name, target, progress, force=force)
        progress.clear()
    if target != "-":
        click.echo(f"image {name} written to {target}")


@image.command("list")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="In all namespaces.")
@click.option("--catalog", is_flag=True, help="The official images that `carmel image pull` knows by name.")
@output_option(Output())
@with_session
def list_(session: Session, *, everywhere: bool, catalog: bool, output: Output) -> None:
    """List images.

    \b
    carmel image list -o wide
    carmel image list --catalog
    """
    if catalog:
        _print_catalog(output)
        return
    kind = image_kind(session)
    selection = session.select(kind, everywhere=everywhere)
    if not output.is_table:
        print_object(session.client.list(kind, selection), output)
        return
    table = session.client.table(kind, selection)
    if table.rows:
        TablePrinter(output, namespaces=everywhere).print(table)
    else:
        click.echo("No images. `carmel image pull debian` gets one.", err=True)


@image.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_images)
@click.option("--force", "--yes", "-y", "force", is_flag=True, help="Do not ask.")
@click.option("--wait/--no-wait", "wait", default=True, help="Wait until it is gone (the default).")
@timeout_option("2m")
@with_session
def delete(session: Session, *, names: tuple[str, ...], force: bool, wait: bool, timeout: float) -> None:
    """Delete images. One that disks still build on goes when the last of them has gone.

    \b
    carmel image delete debian-12
    """
    kind = image_kind(session)
    doomed = [(kind, session.client.get(kind, session.namespace, name)) for name in names]
    confirm(doomed, force=force)
    for _, obj in doomed:
        delete_one(session, kind, obj, seconds=timeout if wait else None)


def _make(
    session: Session, name: str, source: JsonObject, *, wait: bool, timeout: float, output: Output | None
) -> None:
    with Progress(quiet=output is not None) as progress:
        kind = image_kind(session)
        try:
            made = session.client.create(kind, session.namespace, manifest(name, source))
        except AlreadyExists as exc:
            exc.hint = f"take another --name, or `carmel image delete {name}` first"
            raise
        if wait:
            with taken_back_on_failure(session, kind, made):
                made = await_image(session, name, seconds=timeout, progress=progress)
        _tell(session, made, progress, output, ready=wait)


def _tell(session: Session, made: JsonObject, progress: Progress, output: Output | None, *, ready: bool) -> None:
    progress.clear()
    kind = image_kind(session)
    if output is not None:
        print_results(session, [kind], [made], output)
    else:
        name = told(kind, str(dig(made, "metadata", "name")))
        click.echo(f"{name} ready after {duration(progress.elapsed())}" if ready else f"{name} created")


def _print_catalog(output: Output) -> None:
    if output.form == "json":
        click.echo(json.dumps([dataclasses.asdict(entry) for entry in CATALOG], indent=2))
        return
    if output.form not in {"table", "wide", "name"}:
        raise click.UsageError("the catalogue is printed as table, wide, json or name")
    if output.form == "name":
        rows = [[entry.name] for entry in CATALOG]
    else:
        wide = output.form == "wide"
        rows = [["NAME", "ALSO", "SUMMARY", *(["URL"] if wide else [])]]
        rows += [[one.name, ",".join(one.aliases), one.summary, *([one.url] if wide else [])] for one in CATALOG]
    for line in columns(rows):
        click.echo(line)


def _name_from(text: str) -> str:
    """A name that an image can have, out of a file's name or whatever else it is called."""
    base = re.sub(r"\.(qcow2|raw|img|vmdk)$", "", text.lower())
    name = re.sub(r"[^a-z0-9.-]+", "-", base).strip("-.")[:63].strip("-.")
    if not name:
        raise click.UsageError(f"no name can be made of {text!r}: give one by --name")
    return name
