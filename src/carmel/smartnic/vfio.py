"""PCI functions change their drivers: to vfio-pci, through which QEMU has them, and back to the kernel's own, by which
the host has them.

By ``driver_override`` and ``drivers_probe`` (Documentation/ABI/testing/sysfs-bus-pci): no other function of the same
kind is caught by it, and what is half done is done to its end by doing it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Protocol

from carmel.errors import Refused
from carmel.hardware.pci import ADDRESS, DEVICES
from carmel.hardware.sysroot import Sysroot, parse_number
from carmel.run import Command, Limits, Runner
from carmel.smartnic.finding import VFIO

_BUS = "sys/bus/pci"
_MODULES = ("vfio-pci", "vfio_iommu_type1")
"""The second is what QEMU's vfio container asks of the kernel; nothing loads it by itself in every kernel."""

_INTERFACE_SECONDS, _LOOK_SECONDS = 10.0, 0.05
"""A driver may go on by itself after it was given a function; then nothing that can be waited for says when."""


class Kernel(Protocol):
    """Where sysfs is, and how it is written."""

    @property
    def root(self) -> Path: ...

    def write(self, path: str, text: str) -> None:
        """Raises ``OSError``, what the kernel answers."""
        ...


class ThisKernel:
    root = Path("/")

    def write(self, path: str, text: str) -> None:
        # One write, as the kernel takes each for itself; never a new file; and not to read too: some cannot be read,
        # and then the kernel refuses, root or not (kernfs_fop_open).
        descriptor = os.open(self.root / path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode("ascii"))
        finally:
            os.close(descriptor)


class Functions(Protocol):
    """Gives functions to VMs and takes them back."""

    async def bind(self, address: str) -> None:
        """Have vfio-pci drive the PCI function. Raises ``Refused`` (``FunctionNotBound``, ``ProgramMissing``)."""
        ...

    async def give_back(self, address: str) -> None:
        """Have the kernel's own driver have it again. Nothing to do is fine, and so is a function that is gone.
        Raises ``Refused`` (``FunctionNotBound``)."""
        ...

    async def as_interface(self, address: str) -> int:
        """Have the kernel's own driver take it anew, with the MAC address that the NIC has given it by now, and answer
        the index of its interface. Raises ``Refused`` (``FunctionNotBound``)."""
        ...


class VfioFunctions:
    """``Functions`` by sysfs. One at a time: the kernel's lists are its own."""

    def __init__(self, runner: Runner, kernel: Kernel | None = None) -> None:
        self._runner = runner
        self._kernel = kernel or ThisKernel()
        self._lock = asyncio.Lock()
        self._loaded = False

    async def bind(self, address: str) -> None:
        async with self._lock:
            await self._load()
            try:
                await asyncio.to_thread(self._become, _checked(address), VFIO)
            except Refused:
                # Not left without any driver: the host would not find it again.
                with contextlib.suppress(Refused):
                    await asyncio.to_thread(self._return, address)
                raise

    async def give_back(self, address: str) -> None:
        async with self._lock:
            await asyncio.to_thread(self._return, _checked(address))

    async def as_interface(self, address: str) -> int:
        async with self._lock:
            await asyncio.to_thread(self._take_anew, _checked(address))
            try:
                async with asyncio.timeout(_INTERFACE_SECONDS):
                    while (index := await asyncio.to_thread(self._interface, address)) is None:  # noqa: ASYNC110
                        await asyncio.sleep(_LOOK_SECONDS)
            except TimeoutError:
                raise _not_bound(address, "the kernel", "its driver makes no interface of it") from None
            return index

    async def _load(self) -> None:
        if self._loaded:
            return
        for module in _MODULES:
            await self._runner.run(Command(["modprobe", "-q", "--", module], limits=Limits(seconds=20)), check=False)
        if not self._files().exists(f"{_BUS}/drivers/{VFIO}"):
            raise Refused(
                "the kernel has no vfio-pci driver",
                code="NoVFIO",
                hint="install the kernel's modules, or a kernel with CONFIG_VFIO_PCI",
            )
        self._loaded = True

    def _files(self) -> Sysroot:
        """New each time: one remembers where folders lie."""
        return Sysroot(self._kernel.root)

    def _driver(self, address: str) -> str | None:
        return self._files().link(f"{DEVICES}/{address}/driver")

    def _become(self, address: str, driver: str) -> None:
        if not self._files().exists(f"{DEVICES}/{address}"):
            raise _not_bound(address, driver, "it is not there any more")
        try:
            self._kernel.write(f"{DEVICES}/{address}/driver_override", driver)
            self._probe(address, driver)
        except OSError as error:
            raise _not_bound(address, driver, error.strerror or str(error)) from error
        if (now := self._driver(address)) != driver:
            raise _not_bound(address, driver, f"{now or 'no driver'} has it: the kernel's log says why")

    def _return(self, address: str) -> None:
        if not self._files().exists(f"{DEVICES}/{address}"):
            return
        try:
            if (self._files().text(f"{DEVICES}/{address}/driver_override") or "") == VFIO:
                # An empty line takes the override away.
                self._kernel.write(f"{DEVICES}/{address}/driver_override", "\n")
            if self._driver(address) in {VFIO, None}:
                self._probe(address, None)
        except OSError as error:
            raise _not_bound(address, "its own driver", error.strerror or str(error)) from error

    def _take_anew(self, address: str) -> None:
        if not self._files().exists(f"{DEVICES}/{address}"):
            raise _not_bound(address, "the kernel", "it is not there any more")
        try:
            if self._driver(address) is not None:
                self._kernel.write(f"{DEVICES}/{address}/driver/unbind", address)
        except OSError as error:
            raise _not_bound(address, "the kernel", error.strerror or str(error)) from error
        self._return(address)

    def _interface(self, address: str) -> int | None:
        """``None``: there is none (yet), or udev renames it just now."""
        files, device = self._files(), f"{DEVICES}/{address}"
        # Of virtio there is a device in between.
        for folder in (device, *(f"{device}/{name}" for name in files.names(device) if name.startswith("virtio"))):
            for name in files.names(f"{folder}/net"):
                number = parse_number(files.text(f"{folder}/net/{name}/ifindex") or "")
                if number is not None:
                    return number
        return None

    def _probe(self, address: str, driver: str | None) -> None:
        now = self._driver(address)
        if now is not None and now == driver:
            return
        if now is not None:
            self._kernel.write(f"{DEVICES}/{address}/driver/unbind", address)
        self._kernel.write(f"{_BUS}/drivers_probe", address)


def _checked(address: str) -> str:
    """It becomes part of a path."""
    if ADDRESS.fullmatch(address) is None:
        raise Refused(f"{address!r} is not a PCI address", code="FunctionNotBound")
    return address


def _not_bound(address: str, driver: str, why: str) -> Refused:
    return Refused(
        f"PCI function {address} cannot be given to {driver}: {why}",
        code="FunctionNotBound",
        hint=f"journalctl -k | grep {address} may say more",
    )
