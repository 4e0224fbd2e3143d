"""Networks and Ports: what they say, and what realises them."""

from __future__ import annotations

from carmel.controllers.network.controller import NetworkController
from carmel.controllers.network.hostnetworks import HostNetworks
from carmel.controllers.network.ports import PortController
from carmel.controllers.network.tapnics import TapNics
from carmel.controllers.network.usernics import UserNics

__all__ = ["HostNetworks", "NetworkController", "PortController", "TapNics", "UserNics"]
