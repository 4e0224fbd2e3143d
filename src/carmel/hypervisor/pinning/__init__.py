"""Holding a running VM at its place: the CPUs of its threads, the nodes of its memory.

Three means, the strongest that this host has (``abilities``): a systemd scope with its cpuset, a cgroup of our own
with its cpuset, or the affinity of each thread. A cpuset is there before the first page of the VM is (``gate``).
"""

from carmel.hypervisor.pinning.abilities import Means, PinningAbilities, pinning_abilities
from carmel.hypervisor.pinning.cpuset import Cpuset
from carmel.hypervisor.pinning.pinner import Pinner

__all__ = ["Cpuset", "Means", "Pinner", "PinningAbilities", "pinning_abilities"]
