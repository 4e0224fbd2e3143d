"""The emulated NIC's NVMe functions: each is an NBD export that the machine outside plugs into its host as a drive.

What a real NIC's firmware does on PCIe, the QEMU around the lab does: its ``nvme`` device has the blocks of the export
that is named like the function (docs/storage.md). The function's serial number is its name, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from carmel.errors import Conflict, Refused
from carmel.hypervisor.account import Account
from carmel.hypervisor.processes import ProcessTable
from carmel.hypervisor.psk import Psk
from carmel.hypervisor.record import ProcessId
from carmel.hypervisor.running import Running
from carmel.paths import Paths, short_hash
from carmel.resources.smartnic import FunctionKind, FunctionStatus
from carmel.run import Runner, find_program
from carmel.smartnic.nvme.export import (
    PROGRAM,
    Export,
    Listen,
    below,
    export_arguments,
    export_device,
    export_name,
    same_export,
)
from carmel.smartnic.nvme.exporter import Exporter, start, write_keys
from carmel.smartnic.nvme.functions import Show

FUNCTIONS = 4


def function_name(index: int) -> str:
    return f"pf0nvme{index}"


class EmulatedNvme:
    """Fulfils ``functions.NvmeFunctions``.

    ``listen`` is where the first function is exported, the next at the next port. ``key`` gives the key of all, and
    raises ``Refused`` where there is none; ``account`` is whom exporters run as. ``ended`` is called with the uid of a
    namespace whose exporter ended by itself.
    """

    def __init__(
        self,
        paths: Paths,
        runner: Runner,
        table: ProcessTable,
        account: Callable[[], Account],
        listen: Listen,
        key: Callable[[], Awaitable[Psk]],
        ended: Callable[[str], None],
        count: int = FUNCTIONS,
    ) -> None:
        self._paths = paths
        self._runner = runner
        self._table = table
        self._account = account
        self._listen = listen
        self._key = key
        self._ended = ended
        self._names = tuple(function_name(index) for index in range(count))
        self._exporters: dict[str, Exporter] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    async def functions(self) -> Sequence[FunctionStatus]:
        return [FunctionStatus(id=name, kind=FunctionKind.NVME, serial=name) for name in self._names]

    async def adopt(self, uids: Collection[str]) -> None:
        known = {short_hash(uid): uid for uid in uids}
        found = await asyncio.to_thread(self._find)
        for folder in {folder for folder, _argv, _process in found}:
            uid = known.get(folder)
            of_it = [(argv, process) for other, argv, process in found if other == folder]
            if uid is not None and len(of_it) == 1:
                argv, process = of_it[0]
                self._keep(uid, Exporter(argv, Running(process, self._table), self._paths.export(uid)))
            else:
                # Of a namespace that is no more; or two of one, and only one of them can be the one.
                for _argv, process in of_it:
                    await Running(process, self._table).terminate()

    async def show(self, what: Show) -> None:
        async with self._one_at_a_time:
            argv, psk = await self._arguments(what)
            account = self._account()
            paths = self._paths.export(what.uid)
            await asyncio.to_thread(write_keys, paths, psk, account)
            found = self._alive(what.uid)
            if found is not None and not same_export(found.argv, argv):
                await found.end()
                found = None
                await asyncio.to_thread(write_keys, paths, psk, account)
            if found is not None:
                await found.set_limits(what.limits)
                return
            exporter = await start(argv, paths, what.device, account, self._table, self._runner)
            self._keep(what.uid, exporter)

    async def hide(self, uid: str) -> None:
        async with self._one_at_a_time:
            found = self._exporters.get(uid)
            if found is not None:
                await found.end()
                self._exporters.pop(uid, None)

    async def shown(self, uid: str) -> str | None:
        found = self._alive(uid)
        return None if found is None else export_name(found.argv)

    async def aclose(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for exporter in self._exporters.values():
            await exporter.process.let_go()

    # -- inside -------------------------------------------------------------------------------------------------
    async def _arguments(self, what: Show) -> tuple[tuple[str, ...], Psk]:
        if what.function not in self._names:
            raise Refused(
                f"this SmartNIC has no NVMe function {what.function}",
                code="NoSuchFunction",
                hint="it has " + ", ".join(self._names),
                field="spec.function",
            )
        for uid in list(self._exporters):
            other = self._alive(uid)
            if other is not None and uid != what.uid and _collides(other, what):
                raise Conflict(
                    f"{what.function}, or {what.device}, is that of another NVMeNamespace",
                    code="FunctionInUse",
                    hint="unbind that one first",
                )
        psk = await self._key()
        port = self._listen.port + self._names.index(what.function)
        export = Export(
            what.function,
            what.device,
            Listen(self._listen.address, port),
            block_device=await asyncio.to_thread(what.device.is_block_device),
        )
        return export_arguments(_program(), export, self._paths.export(what.uid), what.limits), psk

    def _alive(self, uid: str) -> Exporter | None:
        found = self._exporters.get(uid)
        return found if found is not None and not found.process.ended else None

    def _keep(self, uid: str, exporter: Exporter) -> None:
        self._exporters[uid] = exporter
        watch = asyncio.create_task(self._watch(uid, exporter))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, uid: str, exporter: Exporter) -> None:
        await exporter.process.wait()
        if self._exporters.get(uid) is exporter:
            self._ended(uid)

    def _find(self) -> list[tuple[str, tuple[str, ...], ProcessId]]:
        """(directory's name, arguments, process) of each exporter that runs."""
        seen: dict[tuple[str, ...], str] = {}

        def collect(argv: Sequence[str]) -> bool:
            folder = below(argv, self._paths.exports)
            if folder is not None:
                seen[tuple(argv)] = folder
            return False

        self._table.find(collect)
        return [
            (folder, argv, process)
            for argv, folder in seen.items()
            for process in self._table.find(partial(_equal, argv))
        ]


def _equal(one: Sequence[str], other: Sequence[str]) -> bool:
    return tuple(one) == tuple(other)


def _collides(other: Exporter, what: Show) -> bool:
    return export_name(other.argv) == what.function or export_device(other.argv) == str(what.device)


def _program() -> Path:
    found = find_program(PROGRAM)
    if found is None:
        raise Refused(
            f"{PROGRAM} is not there", code="ProgramMissing", hint="Debian has it in the package qemu-system-common"
        )
    return found
