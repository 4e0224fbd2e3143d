"""Carmel: a hypervisor platform for 64-bit Arm machines."""

__version__ = "0.1.0"
