"""Switches, ports and their providers. Here: ``user``, a private network a VM behind the host's own address."""
