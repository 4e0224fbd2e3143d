"""The host's own certificate authority and the certificates that it signs, made by a child process.

``python -m carmel.apiserver.pki DIRECTORY NAME...`` makes what is missing or near its end, and writes last
``server.json`` with ``{"notAfter": seconds since 1970, "names": [...]}``. cryptography stays out of the daemon (10 MB).

``python -m carmel.apiserver.pki DIRECTORY --client HOST [--days DAYS]`` is for a SmartNIC: it signs what the host that
it serves is known by, and prints ``{"ca.crt": ..., "tls.crt": ..., "tls.key": ...}``. Only the certificate stays here:
the last one signed for a host is the one that counts (``identity.HostCertificates``).

A Raspberry Pi's clock starts in the past, so nothing here may depend on what time it is: certificates are valid from
1970 on, and their end is counted from the present or from when this was written, whichever is later.

=============  ====  ==================================================================
``ca.crt``     0644  what clients trust
``ca.key``     0600  signs ``server.crt`` and the hosts' certificates
``server.crt`` 0644  for 127.0.0.1, ::1, localhost and the names given
``server.key`` 0600
``server.json`` 0644 when ``server.crt`` ends, and for which names it is
``hosts/*.crt`` 0644 on a SmartNIC: which hosts may come, each by this certificate alone
=============  ====  ==================================================================
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from carmel.apiserver.hostnames import GROUP, HOST_USER, is_host_name

NOT_BEFORE = datetime(1970, 1, 2, tzinfo=UTC)
WRITTEN = datetime(2026, 11, 1, tzinfo=UTC)
AUTHORITY_ENDS = datetime(2125, 1, 1, tzinfo=UTC)
SERVER_LASTS = timedelta(days=20 * 365)

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def write(path: Path, data: bytes, mode: int) -> None:
    """Whole or not at all, and never readable by others for a moment."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def authority(folder: Path) -> Pair:
    """The CA: the one that is there if certificate and key belong together, else a new one."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and certificate.public_key() == key.public_key():
            return certificate, key
    except (OSError, ValueError, TypeError):
        pass  # missing or damaged: clients must get a new kubeconfig, but the host goes on
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Carmel host CA {serial % 16**8:08x}")])
    certificate = (
        _builder(name, name, key.public_key(), AUTHORITY_ENDS, serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(folder, "ca", certificate, key)
    return certificate, key


def server(folder: Path, issuer: Pair, names: list[str]) -> datetime:
    """A new certificate for the server; answers its end."""
    key = ec.generate_private_key(ec.SECP256R1())
    ends = _end(SERVER_LASTS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "carmeld")])
    builder = _leaf(subject, issuer, key.public_key(), ends, ExtendedKeyUsageOID.SERVER_AUTH)
    alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
    certificate = builder.add_extension(alternatives, critical=False).sign(issuer[1], hashes.SHA256())
    _write_pair(folder, "server", certificate, key)
    return ends


def client(folder: Path, issuer: Pair, host: str, lasts: timedelta = SERVER_LASTS) -> dict[str, str]:
    """What ``host`` is known by from now on, as the keys of its Secret: an earlier one counts no more.

    The subject is what Kubernetes makes of a certificate's: CN is the user, O the group.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, GROUP),
            x509.NameAttribute(NameOID.COMMON_NAME, HOST_USER + host),
        ]
    )
    builder = _leaf(subject, issuer, key.public_key(), _end(lasts), ExtendedKeyUsageOID.CLIENT_AUTH)
    certificate = builder.sign(issuer[1], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    known = folder / "hosts"
    known.mkdir(mode=0o700, exist_ok=True)
    write(known / f"{host}.crt", certificate, 0o644)
    return {
        "ca.crt": issuer[0].public_bytes(serialization.Encoding.PEM).decode(),
        "tls.crt": certificate.decode(),
        "tls.key": _pem(key).decode(),
    }


def _end(lasts: timedelta) -> datetime:
    return min(max(datetime.now(UTC), WRITTEN) + lasts, AUTHORITY_ENDS)


def _leaf(
    subject: x509.Name, issuer: Pair, key: ec.EllipticCurvePublicKey, ends: datetime, purpose: ObjectIdentifier
) -> x509.CertificateBuilder:
    """``purpose`` is the only thing that it is good for: nobody passes as a host with a server's certificate."""
    return (
        _builder(subject, issuer[0].subject, key, ends, x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key()), critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, ends: datetime, serial: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(ends)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_pair(folder: Path, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    write(folder / f"{name}.key", _pem(key), 0o600)
    write(folder / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _host(text: str) -> str:
    if not is_host_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a host's name")
    return text


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m carmel.apiserver.pki")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--client", type=_host)
    parser.add_argument("--days", type=int, default=SERVER_LASTS.days)
    given = parser.parse_args(arguments)
    if given.client is not None and (given.folder / "ca.crt").exists() and not (given.folder / "ca.key").exists():
        # A new authority would not be the one of the server that runs.
        parser.error(f"{given.folder} has no ca.key: the authority was made elsewhere, and can sign only there")
    issuer = authority(given.folder)
    if given.client is not None:
        print(json.dumps(client(given.folder, issuer, given.client, timedelta(days=given.days))))  # noqa: T201
        return
    names = list(dict.fromkeys(["127.0.0.1", "::1", "localhost", *given.names]))
    ends = server(given.folder, issuer, names)
    facts = {"notAfter": int(ends.timestamp()), "names": names}
    write(given.folder / "server.json", json.dumps(facts).encode(), 0o644)


if __name__ == "__main__":
    main(sys.argv[1:])
