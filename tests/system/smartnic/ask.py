"""One request as a SmartNIC's host sends it: run in the host's network namespace.

``python -m tests.system.smartnic.ask FOLDER METHOD PATH``, with the body on standard input. FOLDER has ca.crt, tls.crt
and tls.key. Prints the status, and the body below it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from carmel.client.endpoint import HttpsEndpoint
from carmel.client.transport import Transport
from carmel.errors import CarmelError

NIC, PORT = "192.168.100.2", 17443


def main() -> None:
    folder, method, path = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    ca, certificate, key = ((folder / name).read_text() for name in ("ca.crt", "tls.crt", "tls.key"))
    endpoint = HttpsEndpoint(NIC, PORT, ca=ca, certificate=certificate, key=key)
    body = sys.stdin.buffer.read() or None
    kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
    try:
        answer = Transport(endpoint).request(method, path, body=body, headers={"Content-Type": kind})
        told = f"{answer.status}\n{answer.body.decode()}"
    except CarmelError as error:
        told = f"0\n{error.code}: {error.message}"
    sys.stdout.write(told)


if __name__ == "__main__":
    main()
