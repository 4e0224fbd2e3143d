"""``carmeld``: puts API server, controllers and effects together; nothing else does.

``main`` reads options, ``Daemon`` starts everything in its order and stops it in the reverse. A ``carmeld`` that ends,
whatever way, leaves its VMs running: the next one finds them.
"""

from __future__ import annotations

from carmel.daemon.main import main

__all__ = ["main"]
