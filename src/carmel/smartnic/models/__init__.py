"""Which SmartNIC this machine is the Arm cores of, and what it shows to its host."""
