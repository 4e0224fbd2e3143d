"""Networks and Ports: what they say, and what realises them."""

from __future__ import annotations

from carmel.controllers.network.controller import NetworkController
from carmel.controllers.network.hostnetworks import HostNetworks

__all__ = ["HostNetworks", "NetworkController"]
