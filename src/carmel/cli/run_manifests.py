"""From the options of ``carmel run`` to manifests. Pure: values in, values out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import click

from carmel.cli.options import DiskOption
from carmel.cli.ssh import USER_ANNOTATION
from carmel.client.discovery import CARMEL_API
from carmel.client.objects import JsonObject
from carmel.errors import NotFound
from carmel.resources.catalog import find_entry

NO_NETWORK = "none"
_ROOT = "root"
_NO_DISK = DiskOption(name=None, size=None, bus=None, volume=None, image=None, keep=False)
_SSH_FORWARD: JsonObject = {"name": "ssh", "protocol": "TCP", "guestPort": 22}


@dataclass(frozen=True, slots=True)
class VmOptions:
    """What is wanted of a new VM. ``network`` ``None`` is no NIC."""

    name: str
    cpus: int
    memory: str
    dedicated: bool
    page_size: str | None
    near: tuple[str, ...]
    nested: bool
    disks: tuple[DiskOption, ...]
    network: str | None
    forwards: tuple[JsonObject, ...]
    user_data: str | None
    ssh_user: str | None
    nonce: str | None
    labels: dict[str, str]
    reached_by_forwards: bool = True
    """The network's VMs have no addresses of their own that others reach: ports of the host lead to them."""

    def on(self, provider: str) -> Self:
        """On a network of this provider. Raises a usage error for ports that it cannot publish."""
        if provider != "user" and self.forwards:
            raise click.UsageError(
                f"--publish needs a network of provider user, and {self.network} has provider {provider}: "
                "its VMs have addresses of their own"
            )
        return replace(self, reached_by_forwards=provider == "user")

    @classmethod
    def read(cls, *, network: str, labels: tuple[str, ...], nonce: str | None, **rest: Any) -> Self:
        """Raises a usage error for what does not fit together."""
        if nonce is not None and (not nonce.isascii() or not nonce.isprintable() or " " in nonce or len(nonce) > 200):
            raise click.UsageError("--nonce is one word of at most 200 printable characters")
        if network == NO_NETWORK and rest["forwards"]:
            raise click.UsageError("--publish needs a network")
        _check_disks(rest["disks"])
        wanted = dict(_label(one) for one in labels)
        return cls(network=None if network == NO_NETWORK else network, labels=wanted, nonce=nonce, **rest)


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"--label takes KEY=VALUE, not {text!r}")
    return key, value


def _check_disks(disks: tuple[DiskOption, ...]) -> None:
    names = [one.name for one in disks if one.name]
    if len(set(names)) != len(names):
        raise click.UsageError("two --disk have the same name")
    for one in disks[1:]:
        if not (one.size or one.volume or one.image):
            raise click.UsageError("--disk needs size=, volume= or image=")


def vm_manifest(wanted: VmOptions, image: str, *, direct_kernel: bool, key: str | None) -> JsonObject:
    """The VM. ``key`` is the public ssh key that its first user gets."""
    spec: JsonObject = {
        "cpu": _cpu(wanted),
        "memory": {"size": wanted.memory, **({"pageSize": wanted.page_size} if wanted.page_size else {})},
        "firmware": _firmware(wanted, image) if direct_kernel else {"type": "UEFI"},
        "powerState": "PoweredOn",
    }
    if wanted.near:
        spec["placement"] = {"near": list(wanted.near)}
    disks = _disks(wanted.disks, None if direct_kernel else image)
    if disks:
        spec["disks"] = disks
    if wanted.network is not None:
        spec["networks"] = [_network(wanted, ssh=key is not None and wanted.reached_by_forwards)]
    cloud_init = _cloud_init(wanted, key)
    if cloud_init:
        spec["cloudInit"] = cloud_init
    meta: JsonObject = {"name": wanted.name}
    if wanted.labels:
        meta["labels"] = wanted.labels
    if key is not None:
        meta["annotations"] = {USER_ANNOTATION: wanted.ssh_user or default_user(image)}
    return {"apiVersion": CARMEL_API, "kind": "VirtualMachine", "metadata": meta, "spec": spec}


def secret_manifest(wanted: VmOptions) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(wanted.name)},
        "type": "Opaque",
        "stringData": {"userdata": wanted.user_data},
    }


def secret_name(vm: str) -> str:
    return f"{vm}-user-data"


def default_user(image: str) -> str:
    """Whom cloud-init gives the key to: the catalogue knows it of official images; ours are as Debian's."""
    try:
        return find_entry(image).user
    except NotFound:
        return "debian"


def _cpu(wanted: VmOptions) -> JsonObject:
    cpu: JsonObject = {"count": wanted.cpus}
    if wanted.dedicated:
        cpu["policy"] = "Dedicated"
    if wanted.nested:
        cpu["nestedVirtualization"] = True
    return cpu


def _firmware(wanted: VmOptions, image: str) -> JsonObject:
    firmware: JsonObject = {"type": "DirectKernel", "imageRef": {"name": image}}
    if wanted.nonce is not None:
        firmware["commandLine"] = f"carmel.nonce={wanted.nonce}"
    return firmware


def _disks(given: tuple[DiskOption, ...], image: str | None) -> list[JsonObject]:
    """The root disk first. Names that were not given are root, data1, data2, ..."""
    rest = list(given)
    disks = []
    if image is not None:
        root = next((one for one in rest if one.name == _ROOT), None)
        if root is None and rest and rest[0].name is None and not (rest[0].volume or rest[0].image):
            root = rest[0]
        if root is not None:
            rest.remove(root)
        disks.append((root or _NO_DISK).spec(_ROOT, image))
    taken = {one.name for one in given}
    free = (name for name in (f"data{number}" for number in range(1, 100)) if name not in taken)
    return [*disks, *(one.spec(one.name or next(free)) for one in rest)]


def _network(wanted: VmOptions, *, ssh: bool) -> JsonObject:
    forwards = list(wanted.forwards)
    if ssh and not any(one["guestPort"] == 22 and one["protocol"] == "TCP" for one in forwards):
        forwards.append(_SSH_FORWARD)
    nic: JsonObject = {"name": "net0", "networkRef": {"name": wanted.network}}
    if forwards:
        nic["forwards"] = forwards
    return nic


def _cloud_init(wanted: VmOptions, key: str | None) -> JsonObject:
    found: JsonObject = {}
    if key is not None:
        found["sshAuthorizedKeys"] = [key]
        found["hostName"] = wanted.name
    if wanted.user_data is not None:
        found["userDataSecretRef"] = {"name": secret_name(wanted.name), "key": "userdata"}
    return found
