"""The kinds that a host has to do with on its NIC. Not looked up: discovery is one more thing to be allowed."""

from __future__ import annotations

from carmel.client.discovery import CARMEL_API, ResourceType


def _kind(plural: str, singular: str, kind: str, *, namespaced: bool, api_version: str = CARMEL_API) -> ResourceType:
    return ResourceType(api_version, plural, singular, kind, namespaced)


SMART_NICS = _kind("smartnics", "smartnic", "SmartNIC", namespaced=False)
NETWORKS = _kind("networks", "network", "Network", namespaced=False)
PORTS = _kind("ports", "port", "Port", namespaced=True)
NVME_NAMESPACES = _kind("nvmenamespaces", "nvmenamespace", "NVMeNamespace", namespaced=False)
POLICIES = _kind("firewallpolicies", "firewallpolicy", "FirewallPolicy", namespaced=True)
NAMESPACES = _kind("namespaces", "namespace", "Namespace", namespaced=False, api_version="v1")
