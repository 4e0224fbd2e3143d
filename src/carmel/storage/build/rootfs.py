"""Installs Debian packages into a root file system, inside namespaces. A program: ``python -m`` with its order on
standard input, progress and at last an error on standard output (``progress PERCENT MESSAGE``, ``error JSON``).

Everything happens on a tmpfs that only these namespaces see, so that nothing can be left behind; the one result is
the file system that is written into the disk file.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import CarmelError, InternalError
from carmel.run import Command, Limits, ProgramFailed, Result, Runner, SystemRunner, find_program
from carmel.storage.build import host_system, sandbox
from carmel.storage.build.customise import DEBIAN_FILES, System, add_certificates, customise
from carmel.storage.build.files import explained
from carmel.units import MIB

_LIMITS = Limits(seconds=1800, output_bytes=64 * MIB)
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "SYSTEMD_OFFLINE": "1",
    # The emulator's default model has pointer authentication, which costs more than all else.
    "QEMU_CPU": "cortex-a57",
}
_EXCLUDED = (
    "--path-exclude=/usr/share/doc/*",
    "--path-include=/usr/share/doc/*/copyright",
    "--path-exclude=/usr/share/man/*",
    "--path-exclude=/usr/share/info/*",
    "--path-exclude=/usr/share/lintian/*",
    "--path-exclude=/usr/share/locale/*",
    "--path-include=/usr/share/locale/locale.alias",
)
# Slow under emulation and done natively, or not wanted: byte code, an initramfs, certificate links, keys that every
# copy of the image would share.
_SKIPPED = (
    "usr/bin/py3compile",
    "usr/sbin/update-initramfs",
    "usr/sbin/update-ca-certificates",
    "usr/bin/ssh-keygen",
)
_TAR = ("--zstd", "--xattrs", "--xattrs-include=*", "--numeric-owner")
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made; ``disk.install`` writes it as JSON."""

    system: str
    archives: Path
    mount_point: Path
    essential: frozenset[str]
    not_installed: frozenset[str]
    disk: Path
    offset_bytes: int
    size_bytes: int
    root_uuid: str
    esp_device: str
    kernel_command_line: str
    sources_list: str
    payload: Path | None
    base: Path | None

    @classmethod
    def parse(cls, text: str) -> Order:
        fields = json.loads(text)
        for name in ("archives", "mount_point", "disk"):
            fields[name] = Path(fields[name])
        for name in ("payload", "base"):
            fields[name] = Path(fields[name]) if fields[name] else None
        for name in ("essential", "not_installed"):
            fields[name] = frozenset(fields[name])
        return cls(**fields)


def main() -> int:
    try:
        with explained():
            order = Order.parse(sys.stdin.read())
            sandbox.enter()
            asyncio.run(_Installation(order, SystemRunner()).run())
    except CarmelError as exc:
        if isinstance(exc, ProgramFailed):
            # dpkg goes on with other packages: what went wrong is far from its last line.
            sys.stderr.write(exc.result.text + exc.result.stderr.decode("utf-8", "replace"))
        _say("error " + json.dumps({"class": type(exc).__name__, **exc.to_dict()}))
        return 1
    return 0


class _Installation:
    def __init__(self, order: Order, runner: Runner) -> None:
        self._order = order
        self._root = order.mount_point
        self._runner = runner
        packages = sorted(order.archives.glob("*.deb"))
        self._packages = [path for path in packages if path.name.partition("_")[0] not in order.not_installed]

    async def run(self) -> None:
        _progress(0, "unpacking the essential packages")
        if not sandbox.runs_arm64():
            emulator = find_program("qemu-aarch64-static")
            if emulator is None:
                raise InternalError("qemu-aarch64-static went away")
            sandbox.run_arm64_by(emulator)
        base = self._order.base
        if base is not None and base.is_file():
            self._root.mkdir()
            self._mount_root()
            await self._run(["tar", *_TAR, "-C", self._root, "-xf", base])
            self._mount_devices()
        else:
            await self._install()
            if base is not None:
                await self._keep(base)
        _progress(85, "setting the system up")
        await self._set_up()
        sandbox.unmount(self._root / "proc")
        sandbox.unmount(self._root / "dev")
        _progress(92, "writing the root file system")
        await self._write_file_system()

    async def _install(self) -> None:
        self._prepare()
        await self._extract_essential()
        self._mount_devices()
        await self._unpack()
        await self._configure()
        await self._compile_python()
        await asyncio.to_thread(add_certificates, self._root)
        await self._chroot("openssl", "rehash", "/etc/ssl/certs")

    async def _keep(self, base: Path) -> None:
        """One a system: who builds again after an update of Debian needs the older one no more."""
        _progress(84, "keeping the installed packages")
        base.parent.mkdir(parents=True, exist_ok=True)
        fresh = base.with_name(f".{self._order.archives.parent.name}.tar")
        try:
            words: list[str | Path] = ["tar", *_TAR, "-C", self._root, "--exclude=./proc/*", "--exclude=./dev/*"]
            await self._run([*words, "-cf", fresh, "."])
            for older in base.parent.glob(f"{self._order.system}-*"):
                older.unlink(missing_ok=True)
            fresh.rename(base)
        finally:
            fresh.unlink(missing_ok=True)

    async def _set_up(self) -> None:
        order = self._order
        common = System(order.system, order.root_uuid, order.esp_device, order.kernel_command_line, order.sources_list)
        enabled = ["systemd-networkd.service"]
        if order.payload is not None:
            await asyncio.to_thread(customise, self._root, common, host_system.FILES)
            await asyncio.to_thread(host_system.set_up, self._root, order.payload)
            await self._chroot(*host_system.ADD_QEMU_USER)
            await self._chroot("systemctl", "mask", *host_system.MASKED)
            enabled += host_system.ENABLED
        else:
            await asyncio.to_thread(customise, self._root, common, DEBIAN_FILES)
        await self._chroot("systemctl", "enable", *enabled)

    def _prepare(self) -> None:
        root = self._root
        root.mkdir()
        self._mount_root()
        # Debian 12 and later: /bin, /sbin and /lib are links; no package ships them in Debian 12.
        for name in ("bin", "lib", "sbin"):
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        database = root / "var/lib/dpkg"
        for folder in (database / "info", database / "updates", root / "proc", root / "dev"):
            folder.mkdir(parents=True)
        for name in ("status", "available"):
            (database / name).touch()

    def _mount_root(self) -> None:
        sandbox.mount("tmpfs", self._root, "tmpfs", options="mode=0755,size=3g")

    def _mount_devices(self) -> None:
        root = self._root
        sandbox.bind(Path("/proc"), root / "proc")
        sandbox.mount("tmpfs", root / "dev", "tmpfs", options="mode=0755")
        for name in _DEVICES:
            (root / "dev" / name).touch()
            sandbox.bind(Path("/dev") / name, root / "dev" / name)
        (root / "dev/fd").symlink_to("/proc/self/fd")
        (root / "dev/shm").mkdir()

    async def _extract_essential(self) -> None:
        """Maintainer scripts need a system to run in before dpkg has unpacked one."""
        for package in self._packages:
            if package.name.partition("_")[0] in self._order.essential:
                content = (await self._run(["dpkg-deb", "--fsys-tarfile", package])).stdout
                # Plain extraction would put directories where the links of a merged /usr are.
                await self._run(["tar", "-C", self._root, "--keep-directory-symlink", "-xf", "-"], stdin=content)

    async def _unpack(self) -> None:
        # This machine's dpkg takes its own architecture for native, and so finds no dependency of an arm64 package
        # met: the order does not matter for unpacking, and apt has resolved them all.
        database = self._root / "var/lib/dpkg"
        (database / "arch").write_text("amd64\narm64\n")
        options = ["--force-depends", "--force-unsafe-io", "--log=/dev/null", *_EXCLUDED]
        await self._run(
            ["dpkg", f"--root={self._root}", *options, "--unpack", *self._packages],
            env=_ENVIRONMENT,
            counted=("Unpacking ", 8, 18, "unpacking packages"),
        )
        (database / "arch").unlink()

    async def _configure(self) -> None:
        policy = self._root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        skipped = [self._root / name for name in _SKIPPED if (self._root / name).exists()]
        for program in skipped:
            sandbox.bind(self._root / "usr/bin/true", program)
        # The interpreter's own package runs this module itself: an empty one compiles nothing.
        for script in (self._root / "usr/lib").glob("python3.*/py_compile.py"):
            sandbox.bind(Path("/dev/null"), script)
            skipped.append(script)
        await self._chroot(
            "dpkg", "--force-unsafe-io", "--log=/dev/null", "--configure", "-a",
            counted=("Setting up ", 18, 85, "configuring packages"),
        )  # fmt: skip
        for program in skipped:
            sandbox.unmount(program)
        policy.unlink()

    async def _compile_python(self) -> None:
        """Byte code is the same on every processor, but belongs to one minor version of Python.

        Where there is none of that version here, the guest compiles what it imports when it first does.
        """
        for library in (self._root / "usr/lib").glob("python3.*"):
            version = library.name
            ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
            interpreter = Path(sys.executable) if version == ours else find_program(version)
            if interpreter is not None:
                words: list[str | Path] = [
                    "-m",
                    "compileall",
                    "-q",
                    "-j",
                    "0",
                    "-s",
                    self._root,
                    "-p",
                    "/",
                    library.parent / "python3",
                ]
                # Its status says that some file could not be compiled: tests of broken syntax are among them.
                await self._run([interpreter, *words, library], check=False)

    async def _write_file_system(self) -> None:
        order = self._order
        options = f"offset={order.offset_bytes},lazy_itable_init=1,nodiscard"
        words: list[str | Path] = [
            "-q",
            "-F",
            "-L",
            "root",
            "-U",
            order.root_uuid,
            "-m",
            "1",
            "-E",
            options,
            "-d",
            self._root,
        ]
        await self._run(["mkfs.ext4", *words, order.disk, f"{order.size_bytes // 1024}k"])

    async def _chroot(self, *words: str, counted: tuple[str, int, int, str] | None = None) -> None:
        await self._run(["chroot", self._root, *words], env=_ENVIRONMENT, counted=counted)

    async def _run(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        counted: tuple[str, int, int, str] | None = None,
        check: bool = True,
    ) -> Result:
        """``counted`` (mark, first, last, message): a line that starts with the mark is one more package done."""
        lines = itertools.count(1)

        def on_line(line: str) -> None:
            if counted and line.startswith(counted[0]):
                _, first, last, message = counted
                share = min(next(lines) / len(self._packages), 1)
                _progress(int(first + (last - first) * share), message)

        return await self._runner.run(
            Command(argv, env=env or {}, stdin=stdin, limits=_LIMITS), on_line=on_line if counted else None, check=check
        )


def _progress(percent: int, message: str) -> None:
    _say(f"progress {percent} {message}")


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
