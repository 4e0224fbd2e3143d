"""The data plane of this machine's own kernel: a bridge a network, a tap a port, nftables, dnsmasq."""
