"""A host in small: the real API and the real store on a Unix socket, and controllers that do as theirs do, at once.

Images are downloaded in three steps, VMs get what their spec wants, consoles echo, hosts make the moves that they
propose, networks are confirmed, but for one named ``late``. An image whose source is named ``broken`` fails; a VM
labelled ``stuck`` never becomes what it should be; one named ``stubborn`` cannot be moved.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import uvicorn

from carmel.apiserver.app import ApiConfig, build_app
from carmel.apiserver.authorization import Authorizer
from carmel.apiserver.identity import Authenticator
from carmel.apiserver.streams import ConsoleStream, LogTail
from carmel.errors import CarmelError, NotFound, Refused
from carmel.resources.base import JsonObject
from carmel.resources.core import EVENT, NAMESPACE
from carmel.resources.host import HOST
from carmel.resources.image import IMAGE
from carmel.resources.kinds import Kind
from carmel.resources.network import NETWORK
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.store.protocol import EventType
from carmel.store.sqlite import SqliteStore

ADMIN_TOKEN = "the-admin-token-of-this-test"
LOG = b"one\ntwo\nthree\n"


class EchoConsole:
    """Greets, then says what it is told; ``exit`` ends the VM."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queue.put_nowait(b"login: ")

    async def read(self) -> bytes:
        return await self._queue.get()

    async def write(self, data: bytes) -> None:
        self._queue.put_nowait(b"<" + data + b">")
        if b"exit" in data:
            self._queue.put_nowait(b"")

    async def close(self) -> None:
        return


class FakeStreams:
    """What the daemon's controllers give the API server."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.uploads: dict[str, bytes] = {}
        self.breaks_off = False

    async def open_console(self, namespace: str, name: str) -> ConsoleStream:
        vm = (await self._store.get(VIRTUAL_MACHINE, namespace, name)).json()
        if (vm.get("status") or {}).get("powerState") != "PoweredOn":
            raise Refused(f"virtual machine {name!r} is not running", code="NotRunning", hint=f"carmel start {name}")
        return EchoConsole()

    async def read_log(self, namespace: str, name: str, tail: LogTail) -> AsyncIterator[bytes]:
        await self._store.get(VIRTUAL_MACHINE, namespace, name)
        lines = LOG.splitlines(keepends=True)
        kept = lines if tail.lines is None else lines[len(lines) - tail.lines :]

        async def chunks() -> AsyncIterator[bytes]:
            for line in kept:
                yield line

        return chunks()

    async def receive_upload(
        self, namespace: str, image_name: str, chunks: AsyncIterator[bytes], total_bytes: int | None
    ) -> None:
        data = b"".join([chunk async for chunk in chunks])
        if data.startswith(b"hostile"):
            raise Refused("the image names a backing file", code="HostileImage", hint="flatten it first")
        self.uploads[image_name] = data
        await _status(self._store, IMAGE, namespace, image_name, {"phase": "Ready", "type": "Disk"})

    async def read_image(self, namespace: str, name: str) -> tuple[AsyncIterator[bytes], int]:
        await self._store.get(IMAGE, namespace, name)
        data = self.uploads[name]

        async def chunks() -> AsyncIterator[bytes]:
            yield data[: len(data) // 2]
            if self.breaks_off:
                raise OSError(5, "Input/output error")
            yield data[len(data) // 2 :]

        return chunks(), len(data)


class World:
    """Start it with ``with``; ``socket`` is where it listens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "api.sock"
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),))
        self.store: SqliteStore
        self.streams: FakeStreams
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        if self._error is not None:
            self._thread.join()
            self._loop.close()
            raise self._error
        return self

    def __exit__(self, *_exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def do(self, work: Callable[[SqliteStore], Awaitable[Any]]) -> Any:
        """Work on the store, from the test's own thread."""

        async def call() -> Any:
            return await work(self.store)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)

    def objects(self, kind: Kind, namespace: str | None = None) -> list[JsonObject]:
        page = self.do(lambda store: store.list(kind, namespace))
        return [one.json() for one in page.items]

    async def _main(self) -> None:
        try:
            await self._serve()
        except Exception as exc:  # noqa: BLE001 - raised again in the test's own thread
            self._error = exc
            self._ready.set()

    async def _serve(self) -> None:
        self.store = await SqliteStore.open(self.folder / "store.sqlite")
        await _furnish(self.store)
        self.streams = FakeStreams(self.store)
        app = build_app(
            ApiConfig(self.store, Authenticator(self.store, ADMIN_TOKEN), Authorizer(self.store), self.streams)
        )
        await app.start()

        async def as_me(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": {"peer_uid": os.getuid()}}, receive, send)

        server = uvicorn.Server(
            uvicorn.Config(as_me, uds=str(self.socket), lifespan="off", log_level="error", ws="websockets-sansio")
        )
        tasks = [asyncio.create_task(server.serve())]
        works = (_images(self.store), _machines(self.store), _hosts(self.store), _networks(self.store))
        tasks += [asyncio.create_task(one) for one in works]
        while not server.started:  # noqa: ASYNC110 - uvicorn tells by a flag alone
            await asyncio.sleep(0.005)
        self._ready.set()
        await self._stop.wait()
        app.shared.stopping.set()
        server.should_exit = True
        await tasks[0]
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await app.stop()
        await self.store.close()


async def _furnish(store: SqliteStore) -> None:
    """What every host has; what an earlier run left in the folder is kept."""
    if (await store.list(HOST)).items:
        return
    for name in ("default", "lab"):
        await store.create(NAMESPACE, {"metadata": {"name": name}})
    await store.create(NETWORK, {"metadata": {"name": "default"}, "spec": {"provider": "user"}})
    await store.create(HOST, {"metadata": {"name": "pi"}})
    await store.replace(
        HOST,
        {
            "metadata": {"name": "pi"},
            "status": {
                "carmelVersion": "0.1.0",
                "system": {"architecture": "aarch64", "board": "Raspberry Pi 4", "kernel": "6.6"},
                "hypervisor": {"accelerator": "kvm", "qemuVersion": "10.0.2", "firmware": True, "sandbox": True},
                "capacity": {"cpus": 4, "memory": "4Gi"},
                "allocated": {"cpus": 1, "memory": "1Gi"},
                "virtualMachines": 1,
                "conditions": [{"type": "Ready", "status": "True", "reason": "Ready"}],
            },
        },
        subresource="status",
    )


async def _status(store: SqliteStore, kind: Kind, namespace: str | None, name: str, status: JsonObject) -> None:
    obj = (await store.get(kind, namespace, name)).json()
    obj["status"] = {**(obj.get("status") or {}), **status, "observedGeneration": obj["metadata"].get("generation")}
    obj["metadata"].pop("resourceVersion")
    await store.replace(kind, obj, subresource="status")


async def _each(store: SqliteStore, kind: Kind, work: Callable[[JsonObject], Awaitable[None]]) -> None:
    async with store.watch(kind, send_initial=True) as events:
        async for event in events:
            if event.object is None or event.type is EventType.DELETED:
                continue
            try:
                await work(event.object.json())
            except NotFound:
                continue


async def _images(store: SqliteStore) -> None:
    async def work(image: JsonObject) -> None:
        if (image.get("status") or {}).get("phase") is not None:
            return
        meta, source = image["metadata"], image["spec"]["source"]

        async def tell(**status: Any) -> None:
            await _status(store, IMAGE, meta["namespace"], meta["name"], status)

        if "upload" in source:
            await tell(phase="Uploading")
            return
        await tell(phase="Downloading", progressPercent=10, message="from the vendor")
        await tell(phase="Downloading", progressPercent=60)
        if "broken" in str(source):
            error = {
                "code": "DigestMismatch",
                "message": "its digest is wrong",
                "hint": "try again",
                "retryable": False,
            }
            await tell(phase="Failed", error=error)
            return
        kernel = (source.get("build") or {}).get("recipe") == "micro"
        await tell(
            phase="Ready", type="Kernel" if kernel else "Disk", architecture="arm64", virtualSizeBytes=2 * 1024**3
        )

    await _each(store, IMAGE, work)


async def _hosts(store: SqliteStore) -> None:
    async def work(seen: JsonObject) -> None:
        host = (await store.get(HOST, None, seen["metadata"]["name"])).json()
        rebalance = (host.get("status") or {}).get("rebalance") or {}
        requested = host["spec"]["placement"]["rebalance"].get("requestedAt")
        if requested is None or requested <= rebalance.get("answeredAt", ""):
            return
        made = [
            {**move, "at": requested, **({"error": "its memory is locked"} if move["name"] == "stubborn" else {})}
            for move in rebalance.get("proposed") or ()
        ]
        done = [*reversed(made), *(rebalance.get("done") or ())]
        name = host["metadata"]["name"]
        # As it goes: the first move is told before the last is made.
        await _status(store, HOST, None, name, {"rebalance": {**rebalance, "done": done[-1:]}})
        await _status(store, HOST, None, name, {"rebalance": {"done": done, "answeredAt": requested}})

    await _each(store, HOST, work)


async def _networks(store: SqliteStore) -> None:
    async def work(network: JsonObject) -> None:
        name, bridge = network["metadata"]["name"], network["spec"].get("bridge") or {}
        taken = (network.get("status") or {}).get("takeover")
        if not taken or taken["phase"] != "Waiting" or bridge.get("confirmedAt", "") <= taken["startedAt"]:
            return
        phase = "RolledBack" if name == "late" else "Confirmed"
        await _status(store, NETWORK, None, name, {"takeover": {**taken, "phase": phase}})

    await _each(store, NETWORK, work)


async def _machines(store: SqliteStore) -> None:
    async def work(vm: JsonObject) -> None:
        meta, spec, status = vm["metadata"], vm["spec"], vm.get("status") or {}
        if meta.get("labels", {}).get("stuck") or status.get("observedGeneration") == meta["generation"]:
            return
        wanted = spec["powerState"]
        running = wanted == "PoweredOn"
        requested = spec.get("restartRequestedAt")
        new_launch = running and (status.get("powerState") != "PoweredOn" or requested != status.get("restartedAt"))
        # First, so that who has waited for the status finds it.
        try:
            await store.create(
                EVENT,
                {
                    "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
                    "involvedObject": {"kind": "VirtualMachine", "name": meta["name"], "uid": meta["uid"]},
                    "reason": "Started" if running else "Stopped",
                    "message": f"it is {wanted}\x1b[31m",
                    "type": "Normal",
                    "lastTimestamp": "2026-01-01T00:00:00Z",
                },
            )
        except CarmelError:
            return
        await _status(
            store,
            VIRTUAL_MACHINE,
            meta["namespace"],
            meta["name"],
            {
                "powerState": wanted,
                "launchID": f"launch-{meta['generation']}" if new_launch else status.get("launchID"),
                "restartedAt": requested,
                "accelerator": "kvm",
                "hostName": "pi",
                "addresses": ["10.0.2.15"] if running else [],
                "disks": [
                    {"name": disk["name"], "volumeName": f"{meta['name']}-{disk['name']}"}
                    for disk in spec.get("disks") or []
                ],
                "networks": [
                    {
                        "name": nic["name"],
                        "mac": "52:54:00:00:00:01",
                        "forwards": [
                            {
                                "protocol": one["protocol"],
                                "guestPort": one["guestPort"],
                                "hostAddress": one["hostAddress"],
                                "hostPort": one.get("hostPort", 40022),
                            }
                            for one in nic.get("forwards") or []
                        ],
                    }
                    for nic in spec.get("networks") or []
                ],
                "conditions": [{"type": "Ready", "status": str(running), "reason": wanted, "message": ""}],
            },
        )

    await _each(store, VIRTUAL_MACHINE, work)
