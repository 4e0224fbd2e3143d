"""A PCI bus below a folder, as sysfs shows it, with a kernel that binds and unbinds drivers when it is written to."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path

BUS = "sys/bus/pci"
NET_DRIVER = "virtio-pci"
NVME_DRIVER = "nvme"


@dataclass
class FakeFunction:
    address: str
    driver: str | None
    mac: str | None
    name: str | None
    serial: str | None = None

    @property
    def own_driver(self) -> str:
        return NET_DRIVER if self.serial is None else NVME_DRIVER


@dataclass
class FakePciBus:
    """Fulfils ``smartnic.vfio.Kernel``. ``deaf``: drivers that refuse to take anything."""

    root: Path
    functions: dict[str, FakeFunction] = field(default_factory=dict)
    deaf: set[str] = field(default_factory=set)
    written: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for driver in (NET_DRIVER, NVME_DRIVER, "vfio-pci", "pcieport"):
            (self.root / BUS / "drivers" / driver).mkdir(parents=True, exist_ok=True)
        (self.root / BUS / "devices").mkdir(parents=True, exist_ok=True)
        (self.root / BUS / "drivers_probe").touch()
        node = self.root / "sys/devices/system/node"
        node.mkdir(parents=True, exist_ok=True)
        (node / "online").write_text("0-1\n")

    def add(
        self,
        address: str,
        *,
        mac: str | None = None,
        name: str | None = None,
        group: int | None = None,
        node: int = -1,
        class_code: int = 0x020000,
        driver: str | None = NET_DRIVER,
        serial: str | None = None,
    ) -> None:
        """A function; with ``mac`` and ``name`` it is an interface while ``NET_DRIVER`` has it, with ``serial`` and
        ``name`` a drive while ``NVME_DRIVER`` has it."""
        folder = self.root / "sys/devices/pci0000:00" / address
        folder.mkdir(parents=True)
        for file, text in (
            ("vendor", "0x1af4"),
            ("device", "0x1041"),
            ("class", f"0x{class_code:06x}"),
            ("numa_node", str(node)),
            ("driver_override", "(null)"),
        ):
            (folder / file).write_text(text + "\n")
        if group is not None:
            place = self.root / "sys/kernel/iommu_groups" / str(group)
            place.mkdir(parents=True, exist_ok=True)
            _link(folder / "iommu_group", place)
        _link(self.root / BUS / "devices" / address, folder)
        self.functions[address] = FakeFunction(address, None, mac, name, serial)
        if driver is not None:
            self._bind(address, driver)

    def remove(self, address: str) -> None:
        self._unbind(address)
        (self.root / BUS / "devices" / address).unlink()
        shutil.rmtree(self.root / "sys/devices/pci0000:00" / address)
        del self.functions[address]

    def use(self, name: str) -> None:
        """The host has an IPv4 address on that interface."""
        table = self.root / "proc/net/route"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(f"Iface\tDestination\tGateway\tFlags\n{name}\t0002000A\t00000000\t0001\n")

    def driver(self, address: str) -> str | None:
        return self.functions[address].driver

    # -- what the kernel does -----------------------------------------------------------------------------------
    def write(self, path: str, text: str) -> None:
        self.written.append((path, text))
        parts = path.split("/")
        match parts:
            case ["sys", "bus", "pci", "devices", address, "driver_override"]:
                self._function(address)
                (self.root / path).write_text(text.strip() + "\n" if text.strip() else "(null)\n")
            case ["sys", "bus", "pci", "devices", address, "driver", "unbind"]:
                if text != address:
                    raise OSError(errno.ENODEV, "No such device")
                self._unbind(address)
            case ["sys", "bus", "pci", "drivers_probe"]:
                self._probe(text)
            case _:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    def _function(self, address: str) -> FakeFunction:
        if address not in self.functions:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return self.functions[address]

    def _probe(self, address: str) -> None:
        function = self._function(address)
        if function.driver is not None:
            return
        override = (self.root / BUS / "devices" / address / "driver_override").read_text().strip()
        # vfio-pci takes nothing that it was not told to: it knows no ids.
        wanted = function.own_driver if override == "(null)" else override
        if wanted not in self.deaf:
            self._bind(address, wanted)

    def _bind(self, address: str, driver: str) -> None:
        function = self._function(address)
        function.driver = driver
        folder = self.root / "sys/devices/pci0000:00" / address
        _link(folder / "driver", self.root / BUS / "drivers" / driver)
        if driver == NET_DRIVER and function.name is not None and function.mac is not None:
            interface = folder / "net" / function.name
            interface.mkdir(parents=True)
            (interface / "address").write_text(function.mac + "\n")
            (interface / "ifindex").write_text(f"{index_of(function.name)}\n")
            _link(interface / "device", folder)
            net = self.root / "sys/class/net"
            net.mkdir(parents=True, exist_ok=True)
            _link(net / function.name, interface)
        if driver == NVME_DRIVER and function.name is not None and function.serial is not None:
            drive = folder / "nvme" / function.name
            drive.mkdir(parents=True)
            (drive / "serial").write_text(function.serial + "\n")
            drives = self.root / "sys/class/nvme"
            drives.mkdir(parents=True, exist_ok=True)
            _link(drives / function.name, drive)

    def _unbind(self, address: str) -> None:
        function = self._function(address)
        folder = self.root / "sys/devices/pci0000:00" / address
        if function.driver is None:
            raise OSError(errno.ENODEV, "No such device")
        function.driver = None
        (folder / "driver").unlink()
        if function.name is not None:
            (self.root / "sys/class/net" / function.name).unlink(missing_ok=True)
            shutil.rmtree(folder / "net", ignore_errors=True)
            (self.root / "sys/class/nvme" / function.name).unlink(missing_ok=True)
            shutil.rmtree(folder / "nvme", ignore_errors=True)


def index_of(name: str) -> int:
    """Of an interface called so."""
    return 100 + zlib.crc32(name.encode()) % 1000


def _link(place: Path, target: Path) -> None:
    """Relative, as sysfs has them."""
    place.symlink_to(os.path.relpath(target, place.parent))
