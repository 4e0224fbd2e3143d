"""The host networks of a daemon: this machine's kernel, loaded only where it is used."""

from __future__ import annotations

from carmel.controllers.network import HostNetworks
from carmel.controllers.runtime import Runtime
from carmel.network.dataplane import DataPlane
from carmel.network.host.claim import Claim
from carmel.paths import Paths
from carmel.run import Runner


def host_networks(runtime: Runtime, paths: Paths, runner: Runner) -> HostNetworks:
    def data_plane() -> DataPlane:
        # Not there at all on other systems than Linux; and many hosts never have a host network.
        from carmel.network.host.hostdataplane import HostDataPlane

        return HostDataPlane(runner, paths.network_runtime, paths.networks)

    return HostNetworks(runtime, data_plane, Claim(paths.networks))
