"""The controller of VirtualMachines.

``observing`` looks, ``planning`` decides (pure, with ``restarts`` and ``waiting``), ``acting`` does (with ``launching``
and ``volumes``), ``status`` says what is (pure).
"""

from carmel.controllers.virtualmachine.controller import Dependencies, VirtualMachineController
from carmel.controllers.virtualmachine.launched import LaunchedSpecs
from carmel.controllers.virtualmachine.observed import HostLimits

__all__ = ["Dependencies", "HostLimits", "LaunchedSpecs", "VirtualMachineController"]
