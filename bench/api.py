"""``carmeld`` as a server: memory, idle CPU, lists of 10,000, watch latency, create rate; kube-apiserver beside it.

The peer is measured when ``--kube-url``, ``--kube-token`` and ``--kube-ca`` name one (any cluster will do; it gets a
namespace and the CRDs of ``deploy/crds``).
"""

from __future__ import annotations

import argparse
import http.client
import json
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.harness import VMS, Api, Daemon, daemon, machine, micro_vm, milliseconds, table

MANY = 10_000
CREATES = 300
WATCHES = 50
LISTS = 15
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kube-url")
    parser.add_argument("--kube-token")
    parser.add_argument("--kube-ca")
    arguments = parser.parse_args()
    print(f"Measured on {machine()} by `python -m bench.api`.\n")
    with daemon() as running:
        print(table("The daemon at rest", list(at_rest(running)), ("what", "value")))
        servers = {"carmeld": running.api()}
        if arguments.kube_url:
            servers["kube-apiserver 1.20"] = kube(arguments.kube_url, arguments.kube_token, arguments.kube_ca)
        print(table("The daemon as an API server", compare(servers), ("what", *servers)))


def at_rest(running: Daemon) -> list[tuple[str, str]]:
    rss, pss = running.memory_mib()
    began = running.cpu_seconds()
    time.sleep(10)
    idle = running.cpu_seconds() - began
    api = running.api()
    for number in range(200):
        api.call("POST", VMS, micro_vm(f"defined-{number}", powerState="PoweredOff"))
    time.sleep(3)
    rss_defined, pss_defined = running.memory_mib()
    return [
        ("memory after start", f"{rss:.0f} MiB RSS, {pss:.0f} MiB PSS"),
        ("CPU in 10 s when idle", f"{idle * 1000:.0f} ms"),
        ("memory with 200 VMs defined", f"{rss_defined:.0f} MiB RSS, {pss_defined:.0f} MiB PSS"),
    ]


def kube(url: str, token: str, ca: str) -> Api:
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=ca)
    assert parts.hostname is not None
    host, port = parts.hostname, parts.port
    api = Api(lambda: http.client.HTTPSConnection(host, port, context=context), {"Authorization": f"Bearer {token}"})
    kubectl = ["kubectl", f"--server={url}", f"--token={token}", f"--certificate-authority={ca}"]
    subprocess.run([*kubectl, "apply", "-f", str(ROOT / "deploy" / "crds")], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(
        [*kubectl, "wait", "--for=condition=Established", "crd/virtualmachines.carmel.dev"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return api


def compare(servers: dict[str, Api]) -> list[tuple[str, ...]]:
    """Each figure of each server, the servers taking turns."""
    creates = {name: create_rate(api) for name, api in servers.items()}
    watches = {name: [] for name in servers}  # type: dict[str, list[float]]
    for number in range(WATCHES):
        for name, api in servers.items():
            watches[name].append(watch_latency(api, number))
    for api in servers.values():
        fill(api)
    lists = {name: [] for name in servers}  # type: dict[str, list[float]]
    sizes: dict[str, int] = {}
    for _ in range(LISTS):
        for name, api in servers.items():
            began = time.perf_counter()
            sizes[name] = len(api.raw("GET", VMS))
            lists[name].append(time.perf_counter() - began)
    return [
        ("creates a second, one client", *(f"{creates[name]:.0f}" for name in servers)),
        ("a change until its watcher has it", *(milliseconds(watches[name]) for name in servers)),
        (f"list of {MANY:,} VMs, at the client", *(milliseconds(lists[name]) for name in servers)),
        ("size of that list", *(f"{sizes[name] / 1e6:.1f} MB" for name in servers)),
    ]


def create_rate(api: Api) -> float:
    began = time.perf_counter()
    for number in range(CREATES):
        api.call("POST", VMS, micro_vm(f"rate-{number}", powerState="PoweredOff"))
    return CREATES / (time.perf_counter() - began)


def watch_latency(api: Api, number: int) -> float:
    """Seconds from sending a patch until its event has come on a watch."""
    name = f"rate-{number}"
    version = api.call("GET", VMS + "?limit=1")["metadata"]["resourceVersion"]
    watch = api.again()
    watch.connection.request(
        "GET", f"{VMS}?watch=1&resourceVersion={version}&fieldSelector=metadata.name%3D{name}", headers=api.headers
    )
    stream = watch.connection.getresponse()
    began = time.perf_counter()
    body: dict[str, Any] = {"metadata": {"annotations": {"bench": str(began)}}}
    api.call("PATCH", f"{VMS}/{name}", body, "application/merge-patch+json")
    while True:
        event = json.loads(stream.readline())
        if event["object"]["metadata"].get("annotations", {}).get("bench") == str(began):
            taken = time.perf_counter() - began
            watch.connection.close()
            return taken


def fill(api: Api) -> None:
    present = len(api.call("GET", VMS)["items"])
    for number in range(MANY - present):
        api.call("POST", VMS, micro_vm(f"many-{number}", powerState="PoweredOff"))


if __name__ == "__main__":
    main()
