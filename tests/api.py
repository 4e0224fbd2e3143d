"""What system tests ask of an API server, whichever daemon is behind it."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from carmel.client.api import Client, Selection, by_name
from carmel.client.objects import JsonObject, dig
from carmel.errors import CarmelError, Expired, NotFound

GUEST_SECONDS = 90.0
"""An emulated guest on a busy machine."""

Predicate = Callable[[JsonObject], bool]


class Api(ABC):
    """For one thread. ``patience`` is how long things are waited for when a test says nothing else."""

    patience = GUEST_SECONDS

    @property
    @abstractmethod
    def client(self) -> Client: ...

    @abstractmethod
    def last_words(self) -> str:
        """What the daemon said last, for the message of a test that failed."""

    def create(self, word: str, obj: JsonObject, namespace: str | None = "default") -> JsonObject:
        return self.client.create(self.client.kind(word), namespace, obj)

    def get(self, word: str, name: str, namespace: str | None = "default") -> JsonObject:
        return self.client.get(self.client.kind(word), namespace, name)

    def patch(self, word: str, name: str, patch: JsonObject, namespace: str | None = "default") -> JsonObject:
        return self.client.patch(self.client.kind(word), namespace, name, patch)

    def delete(self, word: str, name: str, namespace: str | None = "default") -> None:
        self.client.delete(self.client.kind(word), namespace, name)

    def wait_for(
        self,
        word: str,
        name: str,
        predicate: Predicate,
        *,
        namespace: str | None = "default",
        seconds: float | None = None,
    ) -> JsonObject:
        """The object once ``predicate`` holds of it. No polling: it is watched."""
        kind, selection = self.client.kind(word), by_name(namespace, name)
        deadline = time.monotonic() + (seconds or self.patience)
        last: JsonObject | None = None
        try:
            while True:
                page = self.client.list(kind, selection)
                for last in page["items"]:
                    if predicate(last):
                        return last
                with contextlib.suppress(Expired):
                    for event in self.client.watch(
                        kind, selection, page["metadata"]["resourceVersion"], deadline=deadline
                    ):
                        last = event.object
                        if event.type != "DELETED" and predicate(last):
                            return last
        except CarmelError as error:
            raise AssertionError(
                f"{word} {name} did not come to that: {error}\n{dig(last, 'status')}\n{self.last_words()}"
            ) from error

    def wait_gone(self, word: str, name: str, namespace: str | None = "default", seconds: float | None = None) -> None:
        """Until there is no such object."""
        kind, selection = self.client.kind(word), by_name(namespace, name)
        page = self.client.list(kind, selection)
        if not page["items"]:
            return
        version = page["metadata"]["resourceVersion"]
        for event in self.client.watch(
            kind, selection, version, deadline=time.monotonic() + (seconds or self.patience)
        ):
            if event.type == "DELETED":
                return

    # -- VMs ----------------------------------------------------------------------------------------------------
    def make_micro_image(self, name: str = "micro") -> None:
        self.create("image", {"metadata": {"name": name}, "spec": {"source": {"build": {"recipe": "micro"}}}})
        self.wait_for("image", name, lambda image: dig(image, "status", "phase") == "Ready")

    def micro_vm(self, name: str, command_line: str = "", **spec: object) -> JsonObject:
        """A VM of the micro image, 128 MiB, no disk and no network unless ``spec`` says so."""
        return {
            "metadata": {"name": name},
            "spec": {
                "memory": {"size": "128Mi"},
                "firmware": {
                    "type": "DirectKernel",
                    "imageRef": {"name": "micro"},
                    **({"commandLine": command_line} if command_line else {}),
                },
                **spec,
            },
        }

    def wait_for_console(self, name: str, text: str, seconds: float | None = None, *, times: int = 1) -> str:
        """The serial log up to the line that holds ``text`` (for the ``times``th time, with those of earlier starts);
        the log is followed through the API."""
        path = self.client.kind("vm").path("default", name, "log")
        said = b""
        deadline = time.monotonic() + (seconds or self.patience)
        with self.client.open("GET", path, query={"follow": "true"}, seconds=seconds or self.patience) as stream:
            while said.rpartition(b"\n")[0].count(text.encode()) < times:
                stream.wait_at_most(max(0.1, deadline - time.monotonic()))
                chunk = stream.chunk()
                if not chunk:
                    break
                said += chunk
        decoded = said.decode("utf-8", "replace")
        assert decoded.count(text) >= times, f"{name} never said {text!r}:\n{decoded[-3000:]}"
        return decoded

    def delete_all_vms(self) -> None:
        """Through the API, as a user would; then nothing of them may be left."""
        kind = self.client.kind("vm")
        names = [vm["metadata"]["name"] for vm in self.client.list(kind, Selection("default"))["items"]]
        for name in names:
            with contextlib.suppress(NotFound):
                self.patch("vm", name, {"spec": {"powerOffMode": "Hard"}})
                self.delete("vm", name)
        for name in names:
            self.wait_gone("vm", name)
