"""Which kernel modules a lab machine has, and which of them it loads when it boots.

At boot only what every machine needs before carmeld runs: each module costs an emulated processor time. The others are
loaded when something asks for them: the kernel itself (it runs modprobe for a qdisc, an expression of nftables, a kind
of link, a device node that is opened), or carmeld.
"""

from __future__ import annotations

AT_BOOT = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "isofs", "evdev")
AT_BOOT_IF_THERE = ("nvme", "ext4", "virtio_scsi", "sd_mod", "gpio_keys", "virtio_balloon")

_SWITCHING = (
    "bridge",
    "8021q",
    "bonding",
    "veth",
    "tun",
    "macvtap",
    "vhost_net",
    "ifb",
    "dummy",
    "openvswitch",
    "pktgen",
)
_SHAPING = (
    "sch_ingress", "sch_tbf", "sch_htb", "sch_fq_codel",
    "cls_u32", "cls_matchall", "cls_flower", "act_mirred", "act_police", "act_gact",
)  # fmt: skip
_FILTERING = (
    "nf_tables", "nft_ct", "nft_limit", "nft_log", "nft_masq", "nft_nat", "nft_chain_nat", "nft_numgen", "nft_objref",
    "nft_quota", "nft_reject_inet", "nft_fib_inet", "nft_hash", "nft_meta_bridge", "nft_reject_bridge",
    "nf_conntrack_bridge", "nf_conntrack_netlink", "nf_log_syslog",
)  # fmt: skip
_PASSING_ON = ("vfio_pci", "vfio_iommu_type1")
_STORAGE = ("nvme_tcp", "nvmet", "nvmet_tcp", "nbd", "loop", "tls", "null_blk")
ON_DEMAND = (*_SWITCHING, *_SHAPING, *_FILTERING, *_PASSING_ON, *_STORAGE)
