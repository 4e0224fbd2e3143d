"""A real helper: passt is started before QEMU, adopted with it, and ends with it."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from carmel.errors import CarmelError
from carmel.hypervisor.config import Helper, MachineConfig, NicConfig
from carmel.hypervisor.processes import process_table
from carmel.paths import Paths
from tests.system.hypervisor.conftest import ConfigMaker, House, read_until


def with_passt(paths: Paths, config: MachineConfig, *more: str) -> NicConfig:
    socket = paths.machine(config.uid).network_socket(0)
    argv = ("/usr/bin/passt", "--foreground", "--quiet", "--one-off", "--socket", str(socket), *more)
    netdev = {"type": "stream", "server": False, "addr": {"type": "unix", "path": str(socket)}}
    return NicConfig("default", "52:54:00:11:22:33", netdev, Helper("passt", argv, socket))


def with_nic(make_config: ConfigMaker, paths: Paths, *more: str) -> MachineConfig:
    config = make_config()
    return make_config(uid=config.uid, bios_uuid=config.uid, nics=(with_passt(paths, config, *more),))


def namespaces_are_allowed() -> bool:
    """passt locks itself into namespaces of its own, and ends where it may not (in a chroot, in some containers)."""
    return subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not namespaces_are_allowed(), reason="no user namespaces here, which passt needs")
async def test_passt_lives_and_ends_with_its_vm(house: House, make_config: ConfigMaker) -> None:
    first = house.hypervisor()
    config = with_nic(make_config, house.paths)
    machine = await first.launch(config)
    (helper,) = machine.record.helpers
    assert helper.process is not None
    await read_until(first, config.uid, b"ready nonce=")
    await first.close()
    second = house.hypervisor()
    (found,) = await second.adopt()
    assert found.record.helpers == machine.record.helpers
    assert process_table().alive(helper.process)
    await found.kill("done")
    assert not process_table().alive(helper.process)


async def test_a_helper_that_cannot_start_is_quoted_and_nothing_is_left(house: House, make_config: ConfigMaker) -> None:
    config = with_nic(make_config, house.paths, "--no-such-option")
    with pytest.raises(CarmelError) as caught:
        async with asyncio.timeout(20):
            await house.hypervisor().launch(config)
    assert "passt" in caught.value.message
    assert not house.paths.machine(config.uid).launch_record.exists()
