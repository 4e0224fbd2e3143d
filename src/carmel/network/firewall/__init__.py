"""The firewall: one compiler from policies to a ruleset, and the places to load it.

``compile_policy`` and ``assemble`` make a ``Ruleset`` (pure), ``decide`` asks it, a ``FirewallDataPlane`` puts it in
force: ``NftFirewall`` on this machine's bridges.
"""

from carmel.network.firewall.assembly import assemble
from carmel.network.firewall.compile import (
    MAX_ENTRIES,
    CompiledPolicy,
    Draft,
    Room,
    Ruleset,
    compile_all,
    compile_draft,
    compile_policy,
    refused_policy,
)
from carmel.network.firewall.dataplane import FirewallDataPlane
from carmel.network.firewall.deciding import decide
from carmel.network.firewall.model import (
    Connection,
    Count,
    Decision,
    LabelledVm,
    PolicyRef,
    PortBinding,
    PortKey,
    PortSource,
    RuleRef,
    Why,
)
from carmel.network.firewall.nft import NftFirewall

__all__ = [
    "MAX_ENTRIES",
    "CompiledPolicy",
    "Connection",
    "Count",
    "Decision",
    "Draft",
    "FirewallDataPlane",
    "LabelledVm",
    "NftFirewall",
    "PolicyRef",
    "PortBinding",
    "PortKey",
    "PortSource",
    "Room",
    "RuleRef",
    "Ruleset",
    "Why",
    "assemble",
    "compile_all",
    "compile_draft",
    "compile_policy",
    "decide",
    "refused_policy",
]
