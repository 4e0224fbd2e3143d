"""NVMe namespaces of a SmartNIC: paths to their blocks, functions that show them, and what the host hears of them."""

from carmel.controllers.nic.nvme.controller import NvmeNamespaceController
from carmel.controllers.nic.nvme.keys import ExportKeys
from carmel.controllers.nic.nvme.shown import ShownNamespaces

__all__ = ["ExportKeys", "NvmeNamespaceController", "ShownNamespaces"]
