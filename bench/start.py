"""How long a VM takes to start: Carmel's API, raw QEMU with the same arguments, and libvirt's API, taking turns.

Two moments are taken for each: QEMU's serial socket takes a connection, and the first byte comes out of it. Raw QEMU
is given the very arguments that Carmel's launch record holds, with sockets of its own. libvirt is measured where its
daemon answers (``virsh -c qemu:///system``); its domain has the same machine, CPU, memory, kernel and devices.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.harness import VMS, Api, Daemon, daemon, machine, make_micro_image, micro_vm, milliseconds, table

PAUSED = 20
_DEADLINE_SECONDS = 60

Moments = tuple[float, float]
"""Seconds from the request to a connected serial socket, and to its first byte."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(f"Measured on {machine()} by `python -m bench.start`.\n")
    with daemon() as running:
        api = running.api()
        make_micro_image(api)
        argv = recorded_arguments(running, api)
        starters: dict[str, Callable[[int], Moments]] = {
            "Carmel's API": lambda number: by_carmel(running, api, number),
            "raw QEMU": lambda _number: by_hand(argv),
        }
        if libvirt_answers():
            starters["libvirt's API"] = lambda number: by_libvirt(argv, number)
        taken: dict[str, list[Moments]] = {name: [] for name in starters}
        for number in range(arguments.rounds):
            for name, start in starters.items():
                taken[name].append(start(number))
        rows = [
            (name, milliseconds([socket_ for socket_, _ in moments]), milliseconds([byte for _, byte in moments]))
            for name, moments in taken.items()
        ]
        print(table("One start", rows, ("started by", "request to serial socket", "request to first byte")))
        paused = [
            ("Carmel's API", f"{paused_by_carmel(api):.2f} s"),
            ("raw QEMU, two at a time", f"{paused_by_hand(argv):.2f} s"),
        ]
        print(table(f"{PAUSED} paused starts", paused, ("started by", "until all are there")))
        print(table("The daemon with 20 running", [with_twenty(running, api)], ("what", "value")))


# -- Carmel ---------------------------------------------------------------------------------------------------------
def launch_record(running: Daemon, uid: str) -> Path:
    return running.state / "machines" / uid / "launch.json"


def recorded_arguments(running: Daemon, api: Api) -> list[str]:
    """What Carmel runs for the guest of the measurement."""
    vm = api.call("POST", VMS, micro_vm("record"))
    record = launch_record(running, vm["metadata"]["uid"])
    wait_until(lambda: bool(api.call("GET", f"{VMS}/record").get("status", {}).get("launchID")))
    argv = json.loads(record.read_text())["argv"]
    forget(api, "record")
    return [str(word) for word in argv]


def by_carmel(running: Daemon, api: Api, number: int) -> Moments:
    name = f"start-{number}"
    began = time.perf_counter()
    vm = api.call("POST", VMS, micro_vm(name))
    serial = serial_socket(running, vm["metadata"]["uid"])
    moments = moments_of(serial, began)
    forget(api, name)
    return moments


def serial_socket(running: Daemon, uid: str) -> Path:
    from carmel.paths import short_hash  # the one thing of Carmel's that is not asked over its API

    return running.run / "vm" / short_hash(uid) / "serial"


def forget(api: Api, name: str) -> None:
    api.call("PATCH", f"{VMS}/{name}", {"spec": {"powerOffMode": "Hard"}}, "application/merge-patch+json")
    api.raw("DELETE", f"{VMS}/{name}")
    wait_until(lambda: gone(api, name))


def gone(api: Api, name: str) -> bool:
    return all(vm["metadata"]["name"] != name for vm in api.call("GET", VMS)["items"])


def paused_by_carmel(api: Api) -> float:
    began = time.perf_counter()
    for number in range(PAUSED):
        api.call("POST", VMS, micro_vm(f"paused-{number}", powerState="Paused"))

    def all_paused() -> bool:
        vms = api.call("GET", VMS)["items"]
        states = [vm.get("status", {}).get("powerState") for vm in vms if vm["metadata"]["name"].startswith("paused-")]
        return states.count("Paused") == PAUSED

    wait_until(all_paused)
    return time.perf_counter() - began


def with_twenty(running: Daemon, api: Api) -> tuple[str, str]:
    """After ``paused_by_carmel``: the twenty are still there."""
    time.sleep(3)
    rss, pss = running.memory_mib()
    for number in range(PAUSED):
        forget(api, f"paused-{number}")
    return (f"memory with {PAUSED} VMs there", f"{rss:.0f} MiB RSS, {pss:.0f} MiB PSS")


# -- QEMU by hand ----------------------------------------------------------------------------------------------------
def own_arguments(argv: list[str], folder: Path) -> list[str]:
    """``argv`` with sockets and a log in ``folder``: inherited descriptors become paths."""

    def own(word: str) -> str:
        match = re.match(r"socket,id=(\w+),(?:fd=\d+|path=[^,]*),", word)
        if match is None:
            return word
        own_path = re.sub(r"(?:fd=\d+|path=[^,]*),", f"path={folder / match[1]},", word, count=1)
        return re.sub(r"logfile=[^,]*", f"logfile={folder / 'serial.log'}", own_path)

    return [own(word) for word in argv]


def by_hand(argv: list[str]) -> Moments:
    with tempfile.TemporaryDirectory() as folder:
        command = own_arguments(argv, Path(folder))
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            return moments_of(Path(folder) / "serial0", began)
        finally:
            process.kill()
            process.wait()


def paused_by_hand(argv: list[str]) -> float:
    with tempfile.TemporaryDirectory() as root:
        processes: list[subprocess.Popen[bytes]] = []
        began = time.perf_counter()
        try:
            for number in range(0, PAUSED, 2):
                folders = [Path(root) / str(number), Path(root) / str(number + 1)]
                for folder in folders:
                    folder.mkdir()
                    words = [*own_arguments(argv, folder), *([] if "-S" in argv else ["-S"])]
                    processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
                for folder in folders:
                    connect(folder / "qmp").close()
            return time.perf_counter() - began
        finally:
            for process in processes:
                process.kill()
                process.wait()


# -- libvirt --------------------------------------------------------------------------------------------------------
_VIRSH = ["virsh", "-q", "-c", "qemu:///system"]


def libvirt_answers() -> bool:
    if shutil.which("virsh") is None:
        return False
    return subprocess.run([*_VIRSH, "uri"], capture_output=True, check=False).returncode == 0


def by_libvirt(argv: list[str], number: int) -> Moments:
    """Through ``virsh create``, whose own process (about 20 ms) is part of what is measured."""
    folder = Path(tempfile.mkdtemp(prefix="carmel-bench-"))
    folder.chmod(0o777)
    serial = folder / "serial0"
    name = f"carmel-bench-{number}"
    xml = folder / "domain.xml"
    # Copies: libvirt gives the files that it is told of to its own user.
    for option in ("-kernel", "-initrd"):
        shutil.copy(argv[argv.index(option) + 1], folder / option)
    xml.write_text(domain_xml(argv, name, serial))
    began = time.perf_counter()
    starting = subprocess.Popen([*_VIRSH, "create", str(xml)], stdout=subprocess.DEVNULL)
    try:
        return moments_of(serial, began)
    finally:
        starting.wait()
        subprocess.run([*_VIRSH, "destroy", name], stdout=subprocess.DEVNULL, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def domain_xml(argv: list[str], name: str, serial: Path) -> str:
    def after(option: str) -> str:
        return argv[argv.index(option) + 1]

    machine_type = after("-machine").split(",")[0]
    memory_kib = int(re.sub(r"\D", "", after("-m")))
    return f"""<domain type='qemu'><name>{name}</name><uuid>{uuid.uuid4()}</uuid>
      <memory unit='KiB'>{memory_kib}</memory><vcpu>1</vcpu>
      <os><type arch='aarch64' machine='{machine_type}'>hvm</type>
        <kernel>{serial.parent / "-kernel"}</kernel><initrd>{serial.parent / "-initrd"}</initrd>
        <cmdline>{after("-append")}</cmdline></os>
      <features><gic version='3'/></features>
      <cpu mode='custom' match='exact' check='none'><model>{after("-cpu")}</model></cpu>
      <devices><emulator>{argv[0]}</emulator>
        <serial type='unix'><source mode='bind' path='{serial}'/><target port='0'/></serial>
        <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
        <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
        <memballoon model='none'/></devices></domain>"""


# -- moments --------------------------------------------------------------------------------------------------------
def connect(path: Path) -> socket.socket:
    """A connection to ``path`` as soon as there can be one."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no socket {path.name}") from None
            time.sleep(0.0005)
        else:
            return connection


def moments_of(path: Path, began: float) -> Moments:
    with contextlib.closing(connect(path)) as connection:
        connected = time.perf_counter() - began
        connection.settimeout(_DEADLINE_SECONDS)
        connection.recv(1)
        return connected, time.perf_counter() - began


def wait_until(ready: Callable[[], Any]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.002)


if __name__ == "__main__":
    if os.environ.get("PYTHONDONTWRITEBYTECODE"):
        print("compiled files are not kept: starts will be slower", file=sys.stderr)
    main()
