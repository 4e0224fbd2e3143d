"""A kernel's NVMe over TCP initiator that behaves, in a folder: what is written to its files does what it says.

Targets are reached while they are ``up``; a connection that lost its target goes to ``connecting`` and comes back.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit.hardware.machines import Tree

BLOCK = 512


@dataclass(slots=True)
class RemoteTarget:
    """``spaces``: size in bytes by namespace id. ``hosts``: NQNs that are let in; ``None``: anybody."""

    address: str
    port: int
    nqn: str
    spaces: dict[int, int]
    hosts: set[str] | None = None
    up: bool = True
    key: str | None = None


@dataclass(slots=True)
class FakeFabrics:
    """``write`` is for ``Initiator(write=...)``, ``tree.root`` its root. ``multipath`` as the kernel's parameter."""

    tree: Tree
    targets: list[RemoteTarget] = field(default_factory=list)
    multipath: bool = True
    _next: int = 0
    _of: dict[str, RemoteTarget] = field(default_factory=dict)

    def load(self) -> None:
        """As modprobe nvme-tcp does."""
        self.tree.write("dev/nvme-fabrics", "")
        (self.tree.root / "sys/class/nvme").mkdir(parents=True, exist_ok=True)

    def write(self, path: Path, text: str) -> None:
        place = str(path.relative_to(self.tree.root))
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if place == "dev/nvme-fabrics":
            self._connect(dict(word.split("=", 1) for word in text.split(",")))
        elif place.endswith("/delete_controller"):
            self._delete(path.parent.name)
        elif place.endswith("/fast_io_fail_tmo"):
            self.tree.write(place, "off\n" if text == "-1" else f"{int(text)}\n")
        else:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    def settle(self) -> None:
        """States follow what became of the targets."""
        for name, target in self._of.items():
            self.tree.write(f"sys/class/nvme/{name}/state", "live\n" if target.up else "connecting\n")

    def _connect(self, options: dict[str, str]) -> None:
        assert options["transport"] == "tcp"
        place = (options["traddr"], int(options["trsvcid"]))
        target = next((one for one in self.targets if (one.address, one.port) == place and one.up), None)
        if target is None:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if target.key is not None and options.get("dhchap_secret") != target.key:
            raise OSError(errno.EKEYREJECTED, os.strerror(errno.EKEYREJECTED))
        if target.nqn != options["nqn"] or (target.hosts is not None and options["hostnqn"] not in target.hosts):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        for name, other in self._of.items():
            known = (self.tree.root / f"sys/class/nvme/{name}/hostnqn").read_text().strip()
            if other is target and known == options["hostnqn"]:
                raise OSError(errno.EALREADY, os.strerror(errno.EALREADY))
        self._add(f"nvme{self._next}", target, options)

    def _add(self, name: str, target: RemoteTarget, options: dict[str, str]) -> None:
        self._next += 1
        self._of[name] = target
        folder = f"sys/class/nvme/{name}"
        for attribute, value in {
            "transport": "tcp",
            "address": f"traddr={target.address},trsvcid={target.port},src_addr=192.0.2.99",
            "subsysnqn": target.nqn,
            "hostnqn": options["hostnqn"],
            "hostid": options["hostid"],
            "state": "live",
            "serial": f"{abs(hash(target.nqn)):020x}"[:20],
            "model": "Linux",
            "firmware_rev": "6.1",
            "fast_io_fail_tmo": options["fast_io_fail_tmo"],
            "ctrl_loss_tmo": "off" if options["ctrl_loss_tmo"] == "-1" else options["ctrl_loss_tmo"],
            "delete_controller": "",
        }.items():
            self.tree.write(f"{folder}/{attribute}", f"{value}\n")
        for number, (nsid, size) in enumerate(target.spaces.items(), 1):
            head = f"{name}n{number}"
            path = f"{name}c{name[4:]}n{number}" if self.multipath else head
            self.tree.write(f"{folder}/{path}/nsid", f"{nsid}\n")
            block = f"sys/class/block/{head}"
            for attribute, value in {
                "nsid": f"{nsid}",
                "size": f"{size // BLOCK}",
                "dev": f"259:{self._next * 16 + number}",
                "queue/logical_block_size": f"{BLOCK}",
                "stat": " ".join(["0"] * 17),
            }.items():
                self.tree.write(f"{block}/{attribute}", f"{value}\n")

    def _delete(self, name: str) -> None:
        target = self._of.pop(name)
        self.tree.remove(f"sys/class/nvme/{name}")
        for number, _ in enumerate(target.spaces, 1):
            self.tree.remove(f"sys/class/block/{name}n{number}")
