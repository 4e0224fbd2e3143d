"""How long ``/healthz`` takes when nothing else is asked, and while lists of 10,000 VMs are produced for others.

What asks for health (systemd, a load balancer, a person) gives up after a second or so: the worst answer counts.
"""

from __future__ import annotations

import threading
import time

from bench.api import LISTS, MANY, fill
from bench.harness import VMS, Api, daemon, machine, milliseconds, table

ALONE = 200
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
"""What kubectl asks for."""


def main() -> None:
    print(f"Measured on {machine()} by `python -m bench.health`.\n")
    with daemon() as running:
        api = running.api()
        fill(api)
        alone = [asked(api) for _ in range(ALONE)]
        rows = [
            ("nothing else", milliseconds(alone)),
            (f"lists of {MANY:,} as JSON", milliseconds(while_listing(running.api(), api, "application/json"))),
            (f"lists of {MANY:,} as tables", milliseconds(while_listing(running.api(), api, _TABLE))),
        ]
    print(table("/healthz while others are served", rows, ("others ask for", "median, with the range")))


def asked(api: Api) -> float:
    """Seconds until the answer."""
    began = time.perf_counter()
    api.raw("GET", "/healthz")
    return time.perf_counter() - began


def while_listing(lister: Api, api: Api, accept: str) -> list[float]:
    """Each answer to a question that was put while one of the lists was on its way."""
    lister.headers = {"Accept": accept}
    listing = threading.Thread(target=lambda: [lister.raw("GET", VMS) for _ in range(LISTS)])
    found = []
    listing.start()
    while listing.is_alive():
        found.append(asked(api))
    listing.join()
    return found


if __name__ == "__main__":
    main()
