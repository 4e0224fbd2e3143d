"""The sockets, clusters, cores and threads that a guest is told: the truth about its CPUs, as far as the words that
QEMU has can say it. They are equal parts of equal parts; where the truth is uneven the guest is told less, never
something false."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from carmel.placement.model import GuestTopology
from carmel.placement.silicon import Silicon
from carmel.resources.virtualmachine import CpuPolicy


def guest_topology(
    silicon: Silicon, policy: CpuPolicy, homes: Sequence[int], vcpus: Sequence[tuple[int, ...]]
) -> GuestTopology:
    """``homes`` is the cell of each vCPU, ``vcpus`` are their host CPUs."""
    count = len(homes)
    dedicated = policy is CpuPolicy.DEDICATED
    cells = [silicon.cells[home] for home in homes] if dedicated or len(set(homes)) > 1 else []
    if not cells:
        return GuestTopology(1, 1, count, 1)
    threads = _threads(silicon, homes, vcpus) if dedicated else 1
    per_socket = _run([silicon.nodes[cell.node].socket for cell in cells]) or count
    labels: list[list[Hashable]] = [[cell.node for cell in cells]]
    if dedicated:
        labels.insert(0, _clusters(silicon, homes, vcpus))
    for label in labels:
        per_cluster = _run(label)
        if per_cluster and per_cluster > threads and per_socket % per_cluster == 0 and per_cluster % threads == 0:
            break
    else:
        per_cluster = per_socket
    return GuestTopology(count // per_socket, per_socket // per_cluster, per_cluster // threads, threads)


def _run(labels: Sequence[Hashable]) -> int | None:
    """The length of the runs of equal labels, if all are of one length and no label comes back."""
    runs: list[tuple[Hashable, int]] = []
    for label in labels:
        if runs and runs[-1][0] == label:
            runs[-1] = (label, runs[-1][1] + 1)
        else:
            runs.append((label, 1))
    lengths = {length for _, length in runs}
    return lengths.pop() if len(lengths) == 1 and len({label for label, _ in runs}) == len(runs) else None


def _threads(silicon: Silicon, homes: Sequence[int], vcpus: Sequence[tuple[int, ...]]) -> int:
    """Threads of a core, where every core is the VM's to its last thread."""
    if all(silicon.cells[home].threads == 1 for home in set(homes)):
        return 1
    cores = [silicon.core_of[cpus[0]] for cpus in vcpus]
    run = _run(cores)
    return run if run is not None and all(core.bit_count() == run for core in cores) else 1


def _clusters(silicon: Silicon, homes: Sequence[int], vcpus: Sequence[tuple[int, ...]]) -> list[Hashable]:
    return [silicon.cluster_of.get(cpus[0], -home) for home, cpus in zip(homes, vcpus, strict=True)]
