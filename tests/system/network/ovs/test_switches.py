"""Open vSwitch watched and exchanged, with a real one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from carmel.daemon import switches
from carmel.daemon.switches import Chosen, OpenVSwitch, forget_others
from carmel.network.firewall import NftFirewall
from carmel.network.firewall.nft_tables import NftTables
from carmel.network.host.hostdataplane import HostDataPlane
from carmel.network.ovs.dataplane import OvsDataPlane
from carmel.network.ovs.firewall import OvsFirewall
from carmel.network.ovs.health import Health
from carmel.paths import Paths
from carmel.resources.smartnic import SwitchKind
from carmel.run import Runner, SystemRunner
from tests.system.network.host.lab import nat, port
from tests.system.network.ovs.conftest import OvsLab


async def test_health_is_read_from_what_runs(lab: OvsLab) -> None:
    health = Health(SystemRunner(), lab.switch.database, lab.ovs.folder)
    await lab.plane.ensure_network(nat())
    first = health.start_of_vswitchd()
    assert first is not None
    assert await health.look() is None
    assert await health.look() is None
    await lab.ovs.end("ovs-vswitchd", signal.SIGKILL)
    trouble = await health.look()
    assert trouble is not None
    assert trouble.reason == "SwitchStopped"
    await lab.ovs.start_switching()
    assert health.start_of_vswitchd() not in (None, first)
    assert await health.look() is None
    # There is no service here, and so nothing that Carmel may start again.
    assert not await health.is_ours_to_restart()


async def test_flows_are_put_back_before_anybody_asks(lab: OvsLab) -> None:
    await lab.plane.ensure_network(nat())
    await lab.plug(port("one", nat()))
    await lab.ovs.end("ovs-vswitchd", signal.SIGKILL)
    await lab.ovs.start_switching()
    assert "in_port" not in await lab.ovs.run("ovs-ofctl", "dump-flows", "cmb-ports")
    await lab.plane.restore()
    assert "in_port" in await lab.ovs.run("ovs-ofctl", "dump-flows", "cmb-ports")


async def test_offload_is_written_where_it_is_read(lab: OvsLab) -> None:
    await lab.switch.database.set_other_config(**{"hw-offload": "true", "tc-policy": "none"})
    assert (await lab.switch.database.other_config())["hw-offload"] == "true"
    assert '"true"' in await lab.ovs.vsctl("get", "Open_vSwitch", ".", "other_config:hw-offload")


async def test_what_another_switch_made_goes_when_one_is_chosen(
    lab: OvsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"CARMEL_STATE_DIR": str(tmp_path / "state"), "CARMEL_RUN_DIR": str(tmp_path / "run")}
    paths = Paths.from_environment(environment)

    def chosen(kind: SwitchKind, paths: Paths, runner: Runner) -> Chosen:
        """As the daemon's, in the lab."""
        folders = paths.network_runtime, paths.networks
        if kind is SwitchKind.LINUX_BRIDGE:
            plane = HostDataPlane(runner, *folders, namespace=lab.host.path)
            return Chosen(kind, plane, NftFirewall(NftTables(lab.host.path)))
        switch = lab.ovs.switch()
        made = OpenVSwitch(switch, OvsDataPlane(runner, *folders, switch, namespace=lab.host.path))
        return Chosen(kind, made.plane, OvsFirewall(switch), made)

    monkeypatch.setattr(switches, "chosen", chosen)
    before = await lab.interfaces()
    for kind, other in ((SwitchKind.OPEN_VSWITCH, SwitchKind.LINUX_BRIDGE), tuple(reversed(SwitchKind))):
        await forget_others(kind, paths, SystemRunner())
        used = chosen(kind, paths, SystemRunner())
        await used.plane.ensure_network(nat())
        assert await lab.interfaces() != before
        await used.aclose()
        # The same again is no change.
        await forget_others(kind, paths, SystemRunner())
        assert await lab.interfaces() != before
        await forget_others(other, paths, SystemRunner())
        assert await lab.interfaces() == before
