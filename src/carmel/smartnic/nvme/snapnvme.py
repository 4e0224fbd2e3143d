"""BlueField's NVMe functions, by SNAP's RPC socket. Never run on a BlueField: see ``snap``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from carmel.errors import CarmelError, Conflict, Refused, Unavailable
from carmel.resources.smartnic import FunctionKind, FunctionStatus
from carmel.smartnic.nvme.functions import Show
from carmel.smartnic.nvme.snap import (
    Request,
    SnapFunction,
    SnapShown,
    bdev_of,
    bdevs_of,
    functions_of,
    limit_request,
    requests_to_hide,
    requests_to_show,
    requests_to_start,
    shown_of,
)

SOCKET = Path("/var/tmp/spdk.sock")  # noqa: S108 - SPDK's own default ("JSON-RPC", -r)
_ANSWER_SECONDS = 60.0
_LONGEST_ANSWER = 16 * 1024 * 1024


class SnapFailed(CarmelError):
    """SNAP answered a request with an error."""

    reason = "SNAPFailed"


class SnapNvme:
    """Fulfils ``functions.NvmeFunctions``. SNAP is a service of its own: what it shows outlives this daemon."""

    def __init__(self, socket: Path = SOCKET) -> None:
        self._socket = socket
        self._one_at_a_time = asyncio.Lock()
        self._started: set[str] = set()

    async def functions(self) -> Sequence[FunctionStatus]:
        try:
            found = await self._functions()
        except Unavailable:
            # No SNAP, no functions; a NIC that only switches has none.
            return []
        return [
            FunctionStatus(id=one.id, kind=FunctionKind.NVME, pci_address=one.pci_address, serial=one.id)
            for one in found
        ]

    async def adopt(self, uids: Collection[str]) -> None:
        try:
            shown = await self._shown()
        except Unavailable:
            return
        for uid in shown:
            if uid not in uids:
                await self.hide(uid)

    async def show(self, what: Show) -> None:
        async with self._one_at_a_time:
            function = self._one_of(what, await self._functions())
            shown = await self._shown()
            bdevs = bdevs_of(await self._call(Request("bdev_get_bdevs", {})))
            ours = shown.get(what.uid)
            for uid, other in shown.items():
                same_device = other.bdev is not None and bdevs.get(other.bdev) == str(what.device)
                if uid != what.uid and (other.function == what.function or same_device):
                    raise Conflict(
                        f"{what.function}, or {what.device}, is that of another NVMeNamespace",
                        code="FunctionInUse",
                        hint="unbind that one first",
                    )
            as_wanted = ours is not None and ours.function == what.function and ours.attached
            if ours is not None and as_wanted and bdevs.get(bdev_of(what.uid)) == str(what.device):
                await self._call(limit_request(what))
                await self._see_to_it_that_it_runs(what.uid, ours)
                return
            if ours is not None or bdev_of(what.uid) in bdevs:
                await self._do(requests_to_hide(what.uid, ours, bdevs))
            await self._start(what, function)

    async def hide(self, uid: str) -> None:
        shown = await self._shown()
        bdevs = bdevs_of(await self._call(Request("bdev_get_bdevs", {})))
        await self._do(requests_to_hide(uid, shown.get(uid), bdevs))

    async def shown(self, uid: str) -> str | None:
        try:
            found = (await self._shown()).get(uid)
        except Unavailable:
            return None
        return found.function if found is not None and found.attached else None

    async def aclose(self) -> None:
        return None

    # -- inside -------------------------------------------------------------------------------------------------
    async def _start(self, what: Show, function: SnapFunction) -> None:
        answer: Any = None
        for request in requests_to_show(what, function, {}):
            answer = await self._call(request)
        controller = answer.get("ctrl_id") if isinstance(answer, dict) else answer
        if not isinstance(controller, str):
            raise SnapFailed("SNAP did not say which controller it made")
        await self._do(requests_to_start(controller))
        self._started.add(what.uid)

    async def _see_to_it_that_it_runs(self, uid: str, shown: SnapShown) -> None:
        """An earlier daemon may have been killed just before it let the controller run, and SNAP does not tell."""
        if uid not in self._started and shown.controller is not None:
            with contextlib.suppress(SnapFailed):
                await self._call(Request("nvme_controller_resume", {"ctrl_id": shown.controller}))
            self._started.add(uid)

    def _one_of(self, what: Show, functions: Sequence[SnapFunction]) -> SnapFunction:
        found = next((one for one in functions if one.id == what.function), None)
        if found is None:
            raise Refused(
                f"this SmartNIC has no NVMe function {what.function}",
                code="NoSuchFunction",
                hint="it has " + (", ".join(one.id for one in functions) or "none: its firmware decides how many"),
                field="spec.function",
            )
        return found

    async def _functions(self) -> tuple[SnapFunction, ...]:
        return functions_of(await self._call(Request("emulation_function_list", {"all": True})))

    async def _shown(self) -> dict[str, SnapShown]:
        return shown_of(await self._call(Request("nvme_subsystem_list", {})))

    async def _do(self, requests: Sequence[Request]) -> None:
        for request in requests:
            await self._call(request)

    async def _call(self, request: Request) -> Any:
        """JSON-RPC 2.0, one call a connection. Raises ``Unavailable`` (``SNAPAway``) and ``SnapFailed``."""
        body = {"jsonrpc": "2.0", "id": 1, "method": request.method}
        if request.params:
            body["params"] = dict(request.params)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return _result(request, await self._exchange(json.dumps(body).encode()))
        except (OSError, TimeoutError, ValueError) as exc:
            raise Unavailable(
                f"SNAP does not answer at {self._socket}: {exc}",
                code="SNAPAway",
                hint="is its service running on the BlueField?",
            ) from exc

    async def _exchange(self, body: bytes) -> Any:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            writer.write(body)
            await writer.drain()
            heard = b""
            while chunk := await reader.read(65536):
                heard += chunk
                if len(heard) > _LONGEST_ANSWER:
                    raise ValueError("its answer does not end")
                # There is nothing at an answer's end but its end.
                if (answer := _parsed(heard)) is not None:
                    return answer
            raise ValueError("it closed the connection")
        finally:
            writer.close()


def _parsed(heard: bytes) -> Any:
    try:
        return json.loads(heard)
    except ValueError:
        return None


def _result(request: Request, answer: Any) -> Any:
    error = answer.get("error") if isinstance(answer, dict) else {"message": "it is no object"}
    if error is not None:
        words = error.get("message") if isinstance(error, dict) else error
        raise SnapFailed(f"SNAP refused {request.method}: {words}")
    return answer.get("result")
