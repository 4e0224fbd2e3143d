"""What runs on a SmartNIC: what it tells of itself, and the ports that its host's functions are plugged into."""
