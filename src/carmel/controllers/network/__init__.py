"""Networks and Ports: what they say, and what realises them.

Nothing is imported here: a SmartNIC has use for some of it, and none for what gives networks to VMs.
"""
