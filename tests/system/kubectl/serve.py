"""A real API server on a real store, without QEMU, for kubectl to talk to.

``python serve.py FOLDER`` writes the kubeconfigs ``admin``, ``operator``, ``viewer`` and ``stranger`` into FOLDER,
prints ``ready``, and serves until its standard input ends. A stand-in for the controllers gives every VM the status
that its spec asks for, and empties namespaces that are being deleted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path

from carmel.apiserver.identity import SYSTEM_NAMESPACE, TOKEN_SECRET_TYPE, hash_token
from carmel.errors import Conflict, NotFound
from carmel.resources.core import EVENT, NAMESPACE, SECRET
from carmel.resources.rbac import CLUSTER_ROLE_BINDING, ROLE_BINDING
from carmel.resources.registry import KINDS
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.store.protocol import EventType, Store, Stored
from tests.unit.apiserver.harness import Harness, running_server


async def add_user(harness: Harness, folder: Path, name: str) -> None:
    token = f"token-of-{name}-that-nobody-guesses"
    data = {"sha256": hash_token(token), "user": name, "groups": "people"}
    secret = {
        "metadata": {"name": f"token-{name}", "namespace": SYSTEM_NAMESPACE},
        "type": TOKEN_SECRET_TYPE,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
    }
    await harness.store.create(SECRET, secret)
    (folder / name).write_text(json.dumps(harness.server.kubeconfig(token, user=name)))


async def prepare(harness: Harness, folder: Path) -> None:
    (folder / "admin").write_text(json.dumps(harness.server.kubeconfig(harness.token)))
    for name in ("operator", "viewer", "stranger"):
        await add_user(harness, folder, name)
    group = "rbac.authorization.k8s.io"
    for kind, name, role, namespace in (
        (CLUSTER_ROLE_BINDING, "viewer", "viewer", None),
        (ROLE_BINDING, "operator", "operator", "default"),
    ):
        binding = {
            "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "name": name, "apiGroup": group}],
        }
        await harness.store.create(kind, binding)


async def follow_machines(store: Store) -> None:
    async with store.watch(VIRTUAL_MACHINE, send_initial=True) as events:
        async for event in events:
            if event.object is not None and event.type in {EventType.ADDED, EventType.MODIFIED}:
                await settle(store, event.object)


async def settle(store: Store, stored: Stored) -> None:
    """Give a VM the status that its controller would."""
    obj = stored.json()
    wanted = obj["spec"]["powerState"]
    if obj.get("status", {}).get("powerState") == wanted or obj["metadata"].get("deletionTimestamp"):
        return
    on = wanted == "PoweredOn"
    reason = "Running" if on else "PoweredOff"
    condition = {"type": "Ready", "status": "True" if on else "False", "reason": reason}
    obj["status"] = {"powerState": wanted, "conditions": [condition], "addresses": ["10.0.2.15"] if on else []}
    del obj["metadata"]["resourceVersion"]
    try:
        await store.replace(VIRTUAL_MACHINE, obj, subresource="status")
    except (NotFound, Conflict):
        return
    about = {"kind": "VirtualMachine", "apiVersion": obj["apiVersion"], "name": stored.name, "uid": stored.uid}
    now = "2026-11-23T10:00:00Z"
    event = {
        "metadata": {"generateName": f"{stored.name}.", "namespace": stored.namespace},
        "involvedObject": {**about, "namespace": stored.namespace},
        "reason": reason,
        "message": f"the power state is {wanted}",
        "type": "Normal",
        "source": {"component": "stand-in"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    await store.create(EVENT, event)


async def follow_namespaces(store: Store) -> None:
    async with store.watch(NAMESPACE, send_initial=True) as events:
        async for event in events:
            if event.object is not None and event.object.json()["metadata"].get("deletionTimestamp"):
                await empty(store, event.object)


async def empty(store: Store, stored: Stored) -> None:
    for kind in KINDS:
        if kind.namespaced:
            for one in (await store.list(kind, stored.name)).items:
                await store.delete(kind, stored.name, one.name)
    finished = stored.json()
    finished["spec"]["finalizers"] = []
    try:
        await store.replace(NAMESPACE, finished, subresource="finalize")
    except (NotFound, Conflict):
        return


async def until_input_ends() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def main(folder: Path) -> None:
    async with running_server(folder) as harness:
        await prepare(harness, folder)
        workers = [
            asyncio.create_task(follow_machines(harness.store)),
            asyncio.create_task(follow_namespaces(harness.store)),
        ]
        print("ready", flush=True)  # noqa: T201 - the parent waits for it
        await until_input_ends()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
