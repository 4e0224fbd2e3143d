"""BlueField's NVMe functions, against a socket that behaves as SNAP's manual says. No BlueField was there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from carmel.errors import CarmelError
from carmel.smartnic.nvme.functions import Limits, NvmeFunctions, Show
from carmel.smartnic.nvme.snap import SnapFunction as Function
from carmel.smartnic.nvme.snap import bdev_of, limit_request, nqn_of, requests_to_show, requests_to_start
from carmel.smartnic.nvme.snapnvme import SnapNvme
from tests.fakes.nvme_contract import CONTRACT, UID, Check, Subject
from tests.fakes.snap import FakeSnap

WHAT = Show(UID, "pf0nvme0", Path("/dev/nvme0n1"), 4096, Limits(iops=2000, read_bytes=10_000_000))
FUNCTION = Function("pf0nvme0", "0000:84:00.2")


def test_what_is_asked_in_this_order() -> None:
    name, nqn = bdev_of(UID), nqn_of(UID)
    requests = [*requests_to_show(WHAT, FUNCTION, {}), *requests_to_start("NVMeCtrl1")]
    assert [(one.method, one.params) for one in requests] == [
        ("bdev_aio_create", {"name": name, "filename": "/dev/nvme0n1", "block_size": 4096}),
        ("bdev_set_qos_limit",
         {"name": name, "rw_ios_per_sec": 2000, "r_mbytes_per_sec": 9, "w_mbytes_per_sec": 0}),
        ("nvme_subsystem_create", {"nqn": nqn, "serial_number": "pf0nvme0", "model_number": "Carmel"}),
        ("nvme_namespace_create", {"nqn": nqn, "bdev_name": name, "nsid": 1}),
        ("nvme_controller_create", {"nqn": nqn, "pci_bdf": "84:00.2", "suspended": True}),
        ("nvme_controller_attach_ns", {"ctrl_id": "NVMeCtrl1", "nsid": 1}),
        ("nvme_controller_resume", {"ctrl_id": "NVMeCtrl1"}),
    ]  # fmt: skip
    assert limit_request(Show(UID, "pf0nvme0", WHAT.device, 512, Limits(write_bytes=1))).params["w_mbytes_per_sec"] == 1


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
async def test_the_contract(tmp_path: Path, check: Check) -> None:
    snap = FakeSnap()

    @asynccontextmanager
    async def running(known: Collection[str]) -> AsyncIterator[NvmeFunctions]:
        functions = SnapNvme(tmp_path / "sock")
        await functions.adopt(known)
        yield functions

    async with snap.serving(tmp_path / "sock"):
        await check(Subject(running, lambda name: Path("/dev") / name))


async def test_shown_limited_and_gone_without_a_trace(tmp_path: Path) -> None:
    snap, functions = FakeSnap(), SnapNvme(tmp_path / "sock")
    async with snap.serving(tmp_path / "sock"):
        await functions.show(WHAT)
        (controller,) = snap.controllers.values()
        assert (controller["pci"], controller["nsid"], controller["off"]) == ("84:00.2", 1, False)
        snap.calls.clear()
        await functions.show(Show(UID, "pf0nvme0", WHAT.device, 4096))
        assert not any(call.endswith("_create") for call in snap.calls)
        assert snap.limits[bdev_of(UID)] == {"rw_ios_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 0}
        await functions.hide(UID)
        assert (snap.bdevs, snap.subsystems, snap.controllers) == ({}, {}, {})


@pytest.mark.parametrize("made", range(1, 8))
async def test_what_was_left_half_done_is_done_anew(tmp_path: Path, made: int) -> None:
    """As if the daemon was killed after each of its requests."""
    snap, functions = FakeSnap(), SnapNvme(tmp_path / "sock")
    requests = [*requests_to_show(WHAT, FUNCTION, {}), *requests_to_start("NVMeCtrl84:00.2")]
    for request in requests[:made]:
        getattr(snap, request.method)(**request.params)
    async with snap.serving(tmp_path / "sock"):
        await functions.show(WHAT)
        (controller,) = snap.controllers.values()
        assert (controller["nsid"], controller["off"]) == (1, False)


async def test_without_snap_there_are_no_functions(tmp_path: Path) -> None:
    functions = SnapNvme(tmp_path / "nowhere")
    assert await functions.functions() == []
    assert await functions.shown(UID) is None
    await functions.adopt([])
    with pytest.raises(CarmelError) as raised:
        await functions.show(WHAT)
    assert (raised.value.code, raised.value.retryable) == ("SNAPAway", True)
