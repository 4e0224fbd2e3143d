"""A VM's NICs come from several sources, one a kind of network: this is all of them as one."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

from carmel.controllers.virtualmachine.ports import NicPlan, NicSource, VmOfNics, WantedNic
from carmel.errors import Refused


class NicSources:
    """Fulfils ``Nics``. The first of ``sources`` that serves a NIC gives it."""

    def __init__(self, sources: Sequence[NicSource]) -> None:
        self._sources = tuple(sources)

    async def plan(self, vm: VmOfNics, wanted: Sequence[WantedNic]) -> Sequence[NicPlan]:
        shares: dict[int, list[WantedNic]] = {}
        for one in wanted:
            shares.setdefault(self._source(one), []).append(one)
        plans: dict[int, NicPlan] = {}
        try:
            for number, share in shares.items():
                given = await self._sources[number].plan(vm, share)
                plans.update(zip((one.index for one in share), given, strict=True))
        except BaseException:
            close_descriptors(plans.values())
            raise
        return [plans[one.index] for one in wanted]

    async def release(self, uid: str, keep: Collection[str] = ()) -> None:
        for source in self._sources:
            await source.release(uid, keep)

    def _source(self, wanted: WantedNic) -> int:
        for number, source in enumerate(self._sources):
            if source.serves(wanted):
                return number
        network = wanted.network
        raise Refused(
            f"network {network.metadata.name} has provider {network.spec.provider.value} and data plane "
            f"{wanted.data_plane.value}, which this host does not offer",
            code="NotSupported",
            hint="use a network with provider user",
            field=f"spec.networks[{wanted.index}]",
        )


def close_descriptors(plans: Iterable[NicPlan]) -> None:
    """Our copies: QEMU has its own, or there is no QEMU."""
    for plan in plans:
        for descriptor in plan.config.descriptors:
            os.close(descriptor)
