"""Who has which part of the machine: the ledger, what it stands on, and the moves that repair it."""

from carmel.controllers.placement.ground import Ground, Means, make_ground, plain_hardware
from carmel.controllers.placement.ledger import Ledger
from carmel.controllers.placement.mover import Mover
from carmel.controllers.placement.places import Places, PlaceView
from carmel.controllers.placement.rebalancer import Rebalancer
from carmel.controllers.placement.recorded import Recorded
from carmel.controllers.placement.surveyor import Machine, Surveyor

__all__ = [
    "Ground",
    "Ledger",
    "Machine",
    "Means",
    "Mover",
    "PlaceView",
    "Places",
    "Rebalancer",
    "Recorded",
    "Surveyor",
    "make_ground",
    "plain_hardware",
]
