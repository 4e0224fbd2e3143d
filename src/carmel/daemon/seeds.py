"""Writes cloud-init seeds for VMs: ``ports.Seeds``."""

from __future__ import annotations

import asyncio
from pathlib import Path

from carmel.controllers.virtualmachine import ports
from carmel.storage.cloudinit import Seed, write_seed


class CloudInitSeeds:
    async def write(self, seed: ports.Seed, destination: Path) -> None:
        made = Seed(
            instance_id=seed.instance_id,
            host_name=seed.host_name,
            user_data=seed.user_data,
            network_data=seed.network_data,
            ssh_authorized_keys=seed.ssh_authorized_keys,
        )
        await asyncio.to_thread(write_seed, made, destination)
