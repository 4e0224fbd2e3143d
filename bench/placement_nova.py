"""Nova's ``virt/hardware.py`` as it comes in its package, asked one line of JSON at a time. Runs by the Python of the
peers' virtual environment and knows nothing of Carmel.

In: ``{"cells": [{"id", "cpus", "mib", "socket"}], "overcommit": 4.0}`` first, then
``{"place": uid, "vcpus", "mib", "policy"}`` or ``{"drop": uid}``.
Out: ``{"microseconds", "cells": [{"node", "vcpus", "mib"}]}``, ``cells`` ``null`` if it does not fit.
"""

# mypy: ignore-errors

from __future__ import annotations

import json
import sys
import time
import warnings

warnings.simplefilter("ignore")

from nova import objects  # noqa: E402
from nova.objects import fields  # noqa: E402
from nova.virt import hardware  # noqa: E402

MOST_CELLS = 8
PAGE_KIB = 4


def host(description):
    """All CPUs are for both policies: a trace has VMs of one only."""
    return objects.NUMATopology(cells=[cell(one) for one in description["cells"]])


def cell(one):
    pages = objects.NUMAPagesTopology(size_kb=PAGE_KIB, total=one["mib"] * 1024 // PAGE_KIB, used=0, reserved=0)
    return objects.NUMACell(
        id=one["id"],
        cpuset=set(one["cpus"]),
        pcpuset=set(one["cpus"]),
        memory=one["mib"],
        cpu_usage=0,
        memory_usage=0,
        mempages=[pages],
        siblings=[{cpu} for cpu in one["cpus"]],
        pinned_cpus=set(),
        network_metadata=objects.NetworkMetadata(physnets=set(), tunneled=False),
        socket=one["socket"],
    )


def instance(wanted, cells):
    """Nova takes vCPUs and memory in equal parts, as a flavour with ``hw:numa_nodes`` does."""
    dedicated = wanted["policy"] == "Dedicated"
    policy = fields.CPUAllocationPolicy.DEDICATED if dedicated else fields.CPUAllocationPolicy.SHARED
    each, mib = wanted["vcpus"] // cells, wanted["mib"] // cells
    parts = []
    for index in range(cells):
        vcpus = set(range(index * each, (index + 1) * each))
        parts.append(
            objects.InstanceNUMACell(
                id=index,
                cpuset=set() if dedicated else vcpus,
                pcpuset=vcpus if dedicated else set(),
                memory=mib,
                cpu_policy=policy,
            )
        )
    return objects.InstanceNUMATopology(cells=parts)


def fit(topology, wanted, limits):
    """With as few cells as it finds a place for."""
    for cells in range(1, min(MOST_CELLS, len(topology.cells)) + 1):
        if wanted["vcpus"] % cells == 0 and wanted["mib"] % cells == 0:
            found = hardware.numa_fit_instance_to_host(topology, instance(wanted, cells), None, limits=limits)
            if found is not None:
                return found
    return None


def main():
    description = json.loads(sys.stdin.readline())
    topology = host(description)
    limits = objects.NUMATopologyLimits(cpu_allocation_ratio=description["overcommit"], ram_allocation_ratio=1.0)
    there = {}
    for line in sys.stdin:
        wanted = json.loads(line)
        if "drop" in wanted:
            topology = hardware.numa_usage_from_instance_numa(topology, there.pop(wanted["drop"]), free=True)
            answer = {}
        else:
            began = time.thread_time()
            found = fit(topology, wanted, limits)
            answer = {"microseconds": (time.thread_time() - began) * 1e6, "cells": None}
            if found is not None:
                there[wanted["place"]] = found
                topology = hardware.numa_usage_from_instance_numa(topology, found)
                answer["cells"] = [
                    {"node": one.id, "vcpus": len(one.cpuset | one.pcpuset), "mib": one.memory} for one in found.cells
                ]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    objects.register_all()
    main()
