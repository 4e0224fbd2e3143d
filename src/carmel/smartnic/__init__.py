"""SmartNICs: what a host and the Arm cores of its NIC have to say to each other, and what the host does with functions.

The host's part: ``link`` (the NIC's API, over mutual TLS), ``reading`` (what a NIC says, of whatever version it is),
``hostside`` and ``finding`` (which of the host's PCI functions it means), ``vfio`` (functions change their drivers),
``mirror`` (what the NIC should have of the host's networks, ports and policies), ``relay`` (a port whose bytes go to
the NIC).

The NIC's part: ``models`` (which NIC this machine is the Arm cores of, and which functions and representors it has);
``nvme`` (the paths to where blocks are, and the NVMe functions that show them).
"""
