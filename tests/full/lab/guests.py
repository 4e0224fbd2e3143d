"""VMs on the lab's server."""

from __future__ import annotations

import contextlib

from carmel.client.api import Selection
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import AlreadyExists
from tests.full.lab.machine import Machine, until

VM_SECONDS = 600


def guest(name: str, **spec: object) -> JsonObject:
    """A VM of the image that came with the host, with a kernel of its own and no firmware."""
    return {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {
            "cpu": {"count": 1},
            "memory": {"size": "128Mi"},
            "firmware": {"type": "DirectKernel", "imageRef": {"name": "micro"}},
            **spec,
        },
    }


def make_image(machine: Machine) -> None:
    """``micro`` came with the host: nothing is fetched, as there is no network to fetch it from."""
    source = {"build": {"recipe": "micro"}}
    image = {
        "apiVersion": "carmel.dev/v1alpha1",
        "kind": "Image",
        "metadata": {"name": "micro"},
        "spec": {"source": source},
    }
    with machine.client() as client:
        kind = client.kind("image")
        with contextlib.suppress(AlreadyExists):
            client.create(kind, "default", image)
        until(lambda: dig(client.get(kind, "default", "micro"), "status", "phase") == "Ready", VM_SECONDS)


def vm_status(machine: Machine, name: str) -> JsonObject:
    with machine.client() as client:
        return dict(client.get(client.kind("vm"), "default", name).get("status") or {})


def remove(machine: Machine, *names: str) -> None:
    """Deletes VMs and waits until they are gone: what is on its way out is still listed."""
    with machine.client() as client:
        kind = client.kind("vm")
        for name in names:
            client.delete(kind, "default", name)

        def gone() -> bool:
            listed = client.list(kind, Selection("default"))["items"]
            return not {metadata(one, "name") for one in listed} & set(names)

        until(gone, VM_SECONDS, machine.last_words)
