"""NVMe on a SmartNIC: the paths to where the blocks are, and the functions that show them to the host."""
