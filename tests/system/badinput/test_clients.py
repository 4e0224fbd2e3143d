"""Clients that stop reading, go away, or are stopped in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.errors import NotFound
from tests.daemon import Daemon, has_power, is_ready, running_daemon
from tests.system.badinput.programs import Carmel


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running_daemon() as running:
        running.make_micro_image()
        yield running
        assert "Traceback" not in running.log.read_text()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_console_client_that_never_reads(carmel: Carmel, daemon: Daemon) -> None:
    daemon.create("vm", daemon.micro_vm("w"))
    daemon.wait_for("vm", "w", is_ready)
    daemon.wait_for_console("w", "carmel micro: ready")
    # Nobody empties the pipe, so that `carmel` waits for ever and no longer reads what the daemon sends.
    silent = carmel.start("console", "w", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    typed = "yes 0123456789012345678901234567890123456789 | head -c 1000000; echo all-$((20+22))-said\n"
    try:
        before = resident_bytes(daemon.pid)
        carmel("console", "w", "--until", "all-42-said", "--timeout", "50s", stdin=typed)
        assert silent.poll() is None, "it was to hang on, and not to read"
        assert resident_bytes(daemon.pid) - before < 32 << 20
        carmel("pause", "w")
        daemon.wait_for("vm", "w", has_power("Paused"))
        carmel("resume", "w")
        daemon.wait_for("vm", "w", has_power("PoweredOn"))
    finally:
        silent.kill()
        silent.communicate()


def test_a_reader_that_goes_away(carmel: Carmel, daemon: Daemon) -> None:
    for number in range(20):
        daemon.create("secret", {"metadata": {"name": f"s{number}"}})
    for words in (["get", "secret"], ["get", "secret", "--watch"], ["explain", "vm", "--recursive"], ["--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        try:
            process = carmel.start(*words, stdout=writing, stderr=subprocess.PIPE)
        finally:
            os.close(writing)
        _, said = process.communicate(timeout=30)
        assert said == b"", words
        assert process.returncode in {0, 1, 141, -signal.SIGPIPE}, words


def test_an_interrupt_in_the_middle_of_run(carmel: Carmel, daemon: Daemon) -> None:
    process = carmel.start(
        "run",
        "micro",
        "--name",
        "cut",
        "--memory",
        "128Mi",
        "--network",
        "none",
        "--wait=ready",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    daemon.wait_for("vm", "cut", lambda vm: bool(vm.get("status")))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert b"Traceback" not in said, said
    assert process.returncode in {130, -signal.SIGINT}, said
    # What was made is whole: the VM is there under its name, or it is not there at all.
    try:
        daemon.wait_for("vm", "cut", has_power("PoweredOn"))
    except NotFound:
        assert daemon.leftovers() == []


def test_no_terminal(carmel: Carmel, daemon: Daemon) -> None:
    daemon.create("vm", daemon.micro_vm("w", powerState="PoweredOff"))
    refused = carmel("delete", "vm", "w", status=5)
    assert "--force" in refused.stderr
    assert daemon.get("vm", "w")
    edited = carmel("edit", "vm", "w", status=5)
    assert edited.stderr.startswith("error: ")


def test_a_daemon_that_ends_in_the_middle_of_a_watch(carmel: Carmel, daemon: Daemon) -> None:
    process = carmel.start("get", "secret", "--watch", "-o", "name", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        daemon.create("secret", {"metadata": {"name": "first"}})
        line = b""
        while b"first" not in line:
            line = process.stdout.readline()
            assert line, "the watch ended before it told anything"
        started = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - started < 5.0, "a watch held up the end"
        try:
            _, said = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            pytest.fail("the watch never heard of the end")
        assert b"Traceback" not in said
        assert said.startswith(b"error: "), said
        assert process.returncode == 1
    finally:
        process.kill()
        process.communicate()
        if daemon.process is None:
            daemon.start()


def test_a_volume_that_is_attached_stays(carmel: Carmel, daemon: Daemon) -> None:
    daemon.create("volume", {"metadata": {"name": "d"}, "spec": {"size": "4Mi"}})
    disks = [{"name": "d", "volumeRef": {"name": "d"}}]
    daemon.create("vm", daemon.micro_vm("w", powerState="Paused", disks=disks))
    vm = daemon.wait_for("vm", "w", has_power("Paused"))
    carmel("delete", "volume", "d", "--force", "--no-wait")
    assert daemon.get("volume", "d")["metadata"]["deletionTimestamp"]
    assert daemon.get("vm", "w")["status"]["launchID"] == vm["status"]["launchID"]
    uid = daemon.get("volume", "d")["metadata"]["uid"]
    assert (daemon.paths.default_datastore / "volumes" / f"{uid}.qcow2").exists()
    assert "w" in json.dumps(daemon.get("volume", "d")["status"])
    daemon.delete_all_vms()
    daemon.wait_gone("volume", "d")
