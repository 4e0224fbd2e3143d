"""SmartNICs, from the host: what they are, which VM's NIC has which of their functions, and what is mirrored to them.

A function is a VM's NIC's from the moment that the Port on the host says so (``status.smartNIC``, ``status.function``)
until it was unplugged on the NIC. That is written before anything is done with it, so a daemon that was killed finds it
again, and no two VMs ever have the same one. An NVMe function is a Volume's, which says so of itself (``disks``).
"""

from __future__ import annotations

from carmel.controllers.offload.claims import Claims
from carmel.controllers.offload.controller import SmartNICController
from carmel.controllers.offload.disks import FunctionDisks
from carmel.controllers.offload.links import Links
from carmel.controllers.offload.nics import FunctionNics
from carmel.controllers.offload.relays import Relays

__all__ = ["Claims", "FunctionDisks", "FunctionNics", "Links", "Relays", "SmartNICController"]
