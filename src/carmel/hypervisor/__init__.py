"""Runs one VM: its command line (pure), QMP, process, firmware, console."""
