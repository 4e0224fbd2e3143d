"""SNAP's RPC socket, behaving as its manual says: enough of it for one NIC's NVMe functions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class _Wrong(Exception):
    """What SNAP answers with an error."""


@dataclass
class FakeSnap:
    """One PF and one VF. ``calls`` are the methods that were asked, in order."""

    bdevs: dict[str, dict[str, Any]] = field(default_factory=dict)
    limits: dict[str, dict[str, int]] = field(default_factory=dict)
    subsystems: dict[str, dict[str, Any]] = field(default_factory=dict)
    controllers: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    functions: tuple[str, ...] = ("84:00.2", "84:00.3")

    @asynccontextmanager
    async def serving(self, socket: Path) -> AsyncIterator[None]:
        async with await asyncio.start_unix_server(self._answer, socket):
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.read(65536))
        self.calls.append(request["method"])
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        try:
            answer["result"] = getattr(self, request["method"])(**request.get("params", {}))
        except (_Wrong, TypeError, KeyError, AttributeError) as exc:
            answer["error"] = {"code": -32602, "message": f"{exc}"}
        data = json.dumps(answer).encode()
        # An answer need not come in one piece.
        writer.write(data[:7])
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(data[7:])
        await writer.drain()
        writer.close()

    # -- its methods --------------------------------------------------------------------------------------------
    def emulation_function_list(self, *, all: bool = False) -> list[dict[str, Any]]:  # noqa: A002 - its parameter
        entries = [
            {"emulation_type": "NVME", "pf_index": 0, "pci_bdf": address, **self._driven(address)}
            for address in self.functions
        ]
        entries[0]["vfs"] = entries[1:] if all else []
        return [{"emulation_type": "VBLK", "pf_index": 0, "pci_bdf": "84:00.1"}, entries[0]]

    def bdev_get_bdevs(self) -> list[dict[str, Any]]:
        return list(self.bdevs.values())

    def bdev_aio_create(self, name: str, filename: str, block_size: int) -> str:
        self._new(self.bdevs, name)
        self.bdevs[name] = {"name": name, "block_size": block_size, "driver_specific": {"aio": {"filename": filename}}}
        return name

    def bdev_aio_delete(self, name: str) -> bool:
        if any(space["bdev"] == name for one in self.subsystems.values() for space in one["namespaces"]):
            raise _Wrong("bdev is in use")
        del self.bdevs[name]
        return True

    def bdev_set_qos_limit(self, name: str, **limits: int) -> bool:
        self.limits[self.bdevs[name]["name"]] = limits
        return True

    def nvme_subsystem_list(self) -> list[dict[str, Any]]:
        return [self._listed(nqn, one) for nqn, one in self.subsystems.items()]

    def nvme_subsystem_create(self, nqn: str, serial_number: str, model_number: str) -> dict[str, Any]:
        self._new(self.subsystems, nqn)
        self.subsystems[nqn] = {"nqn": nqn, "sn": serial_number, "mn": model_number, "namespaces": []}
        return {"nqn": nqn}

    def nvme_subsystem_destroy(self, nqn: str) -> bool:
        if self.subsystems[nqn]["namespaces"] or any(one["nqn"] == nqn for one in self.controllers.values()):
            raise _Wrong("subsystem is in use")
        del self.subsystems[nqn]
        return True

    def nvme_namespace_create(self, nqn: str, bdev_name: str, nsid: int) -> bool:
        self.subsystems[nqn]["namespaces"].append({"nsid": nsid, "bdev": self.bdevs[bdev_name]["name"]})
        return True

    def nvme_namespace_destroy(self, nqn: str, nsid: int) -> bool:
        if any(one["nqn"] == nqn and one["nsid"] == nsid for one in self.controllers.values()):
            raise _Wrong("namespace is attached")
        self.subsystems[nqn]["namespaces"] = []
        return True

    def nvme_controller_create(self, nqn: str, pci_bdf: str, *, suspended: bool) -> dict[str, Any]:
        if pci_bdf not in self.functions or self._driven(pci_bdf):
            raise _Wrong("no such function, or it has a controller")
        name = f"NVMeCtrl{pci_bdf}"
        self.controllers[name] = {"nqn": self.subsystems[nqn]["nqn"], "pci": pci_bdf, "nsid": None, "off": suspended}
        return {"ctrl_id": name}

    def nvme_controller_attach_ns(self, ctrl_id: str, nsid: int) -> bool:
        self.controllers[ctrl_id]["nsid"] = nsid
        return True

    def nvme_controller_detach_ns(self, ctrl_id: str, nsid: int) -> bool:
        assert self.controllers[ctrl_id]["nsid"] in {nsid, None}
        self.controllers[ctrl_id]["nsid"] = None
        return True

    def nvme_controller_resume(self, ctrl_id: str) -> bool:
        if not self.controllers[ctrl_id]["off"]:
            raise _Wrong("controller is not suspended")
        self.controllers[ctrl_id]["off"] = False
        return True

    def nvme_controller_destroy(self, ctrl_id: str) -> bool:
        del self.controllers[ctrl_id]
        return True

    # -- inside -------------------------------------------------------------------------------------------------
    def _listed(self, nqn: str, one: dict[str, Any]) -> dict[str, Any]:
        ours = {name: of for name, of in self.controllers.items() if of["nqn"] == nqn}
        spaces = [
            {**space, "controllers": [{"ctrl_id": name} for name, of in ours.items() if of["nsid"] == space["nsid"]]}
            for space in one["namespaces"]
        ]
        return {**one, "namespaces": spaces, "controllers": [{"ctrl_id": name} for name in ours]}

    def _driven(self, address: str) -> dict[str, str]:
        return next(({"ctrl_id": name} for name, one in self.controllers.items() if one["pci"] == address), {})

    def _new(self, things: dict[str, Any], name: str) -> None:
        if name in things:
            raise _Wrong(f"{name} exists")
