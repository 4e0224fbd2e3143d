"""Which model this machine is."""

from __future__ import annotations

from collections.abc import Mapping

from carmel.errors import Refused
from carmel.hardware.sysroot import Sysroot
from carmel.network.host.kernel import Link
from carmel.run import Runner
from carmel.smartnic.models.bluefield import BlueField, bluefield_board
from carmel.smartnic.models.emulated import EmulatedNic, is_emulated
from carmel.smartnic.models.model import SmartNicModel


def find_model(root: Sysroot, links: Mapping[str, Link], runner: Runner) -> SmartNicModel:
    """Raises ``Refused`` (``NoSmartNIC``) on a machine that is none."""
    if is_emulated(links):
        return EmulatedNic(root)
    board = bluefield_board(root)
    if board is not None:
        return BlueField(board, root, runner)
    raise Refused(
        "this machine is no SmartNIC that is known: it has neither a BlueField's firmware nor the internal link of an "
        "emulated one",
        code="NoSmartNIC",
        hint="start carmeld without --role smartnic: then it is a host",
    )
