"""A full Debian guest through ``carmeld`` and ``carmel``: UEFI, cloud-init, guest agent, ssh, and what it survives.

One guest for the whole module; its tests take it as it is, running, and leave it so. The last one deletes it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from carmel.client.objects import JsonObject, condition, dig
from carmel.units import GIB
from tests.daemon import Daemon, daemon_directory, ended_by, is_ready
from tests.programs import Program, carmel
from tests.unit.storage.https_server import Site, serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

BOOT_SECONDS = 400
BUILD_SECONDS = 900
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there (port 9 is discard's, RFC 863): no site can be reached."""
USER_DATA = """#cloud-config
write_files:
  - path: /etc/told
    content: told by user data
runcmd:
  - [sh, -c, 'uname -m > /root/ran']
"""
EFI_VARIABLE = "/sys/firmware/efi/efivars/CarmelTest-f3a4b2c6-52a3-4f0e-9a53-7a3c1d2e4b5f"


@dataclass(frozen=True, slots=True)
class Web:
    """The guest, and how to get at it."""

    daemon: Daemon
    carmel: Program

    def ssh(self, *command: str) -> str:
        return self.carmel("ssh", "--timeout", f"{BOOT_SECONDS}s", "web", "--", *command).strip()

    def boot_id(self) -> str:
        return self.ssh("cat", "/proc/sys/kernel/random/boot_id")

    def vm(self) -> JsonObject:
        return self.daemon.get("vm", "web")


def has_agent(vm: JsonObject) -> bool:
    return condition(vm, "GuestAgentConnected").get("status") == "True" and bool(dig(vm, "status", "guest"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serve(tmp_path_factory.mktemp("site")) as served:
        yield served


@pytest.fixture(scope="module")
def daemon(site: Site) -> Iterator[Daemon]:
    with daemon_directory() as root:
        # Where the child that fetches, which has no rights, can read it.
        authority = Path(shutil.copy(site.certificate, root / "ca.pem"))
        authority.chmod(0o644)
        daemon = Daemon(root, {"SSL_CERT_FILE": str(authority)})
        try:
            daemon.start()
            build_once(daemon)
            daemon.stop()
            for name, value in (("https_proxy", NOWHERE), ("no_proxy", "127.0.0.1")):
                daemon.environ |= {name: value, name.upper(): value}
            daemon.start()
            yield daemon
        finally:
            daemon.close()


def build_once(daemon: Daemon) -> None:
    """While mirrors can be reached; what comes out is kept for all full tests, and built anew once in a while."""
    daemon.create("image", {"metadata": {"name": "once"}, "spec": {"source": {"build": {"recipe": "debian"}}}})
    built = daemon.wait_for(
        "image", "once", lambda one: dig(one, "status", "phase") in {"Ready", "Failed"}, seconds=BUILD_SECONDS
    )
    assert built["status"]["phase"] == "Ready", built["status"]
    daemon.delete("image", "once")
    daemon.wait_gone("image", "once")


@pytest.fixture(scope="module")
def web(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Web:
    home = tmp_path_factory.mktemp("home")
    (home / "user-data").write_text(USER_DATA)
    program = carmel(daemon, home, BUILD_SECONDS + BOOT_SECONDS)
    words = ["--cpus", "2", "--memory", "1Gi", "--disk", "size=6Gi", "--user-data", str(home / "user-data")]
    program("run", "debian", "--name", "web", *words, "--wait=ready", "--timeout", f"{BUILD_SECONDS}s")
    daemon.wait_for("vm", "web", has_agent, seconds=BOOT_SECONDS)
    found = Web(daemon, program)
    found.ssh("cloud-init", "status", "--wait")
    return found


def test_the_image_was_built_as_the_catalogue_was_out_of_reach(web: Web) -> None:
    image = web.daemon.get("image", "debian")
    assert image["spec"]["source"] == {"catalog": {"name": "debian", "fallback": "Build"}}
    assert image["status"]["phase"] == "Ready"
    assert image["status"]["origin"] == "build:debian"


def test_it_took_its_user_data_from_the_secret(web: Web) -> None:
    reference = web.vm()["spec"]["cloudInit"]["userDataSecretRef"]
    assert web.daemon.get("secret", reference["name"])["metadata"]["ownerReferences"][0]["name"] == "web"
    assert web.ssh("cat", "/etc/told") == "told by user data"
    assert web.ssh("sudo", "cat", "/root/ran") == "aarch64"


def test_a_command_by_ssh_passes_on_its_status_and_input(web: Web) -> None:
    assert web.carmel.run("ssh", "web", "--", "exit 42").status == 42
    assert web.carmel("ssh", "web", "--", "tr a-z A-Z", stdin="loud") == "LOUD"
    assert web.ssh("id", "-un") == "debian"


def test_the_guest_agent_tells_who_it_is(web: Web) -> None:
    status = web.vm()["status"]
    assert status["guest"]["hostName"] == "web" == web.ssh("hostname")
    assert status["guest"]["osName"].startswith("Debian GNU/Linux 12")
    assert status["guest"]["kernel"] == web.ssh("uname", "-r")
    assert status["guest"]["agentVersion"]
    assert set(status["addresses"]) & set(web.ssh("hostname", "-I").split())


def test_it_was_booted_by_uefi_and_its_root_fills_the_disk(web: Web) -> None:
    assert web.ssh("cat", "/sys/firmware/efi/fw_platform_size") == "64"
    assert web.vm()["status"]["disks"][0]["capacityBytes"] == 6 * GIB
    assert int(web.ssh("df", "--output=size", "-B1", "/").split()[-1]) > 5 * 10**9


def test_it_outlives_a_killed_daemon(web: Web) -> None:
    before, boot_id, pids = web.vm(), web.boot_id(), web.daemon.qemu_pids()
    web.daemon.kill()
    web.daemon.start()
    after = web.daemon.wait_for("vm", "web", lambda vm: is_ready(vm) and has_agent(vm))
    assert after["status"]["launchID"] == before["status"]["launchID"]
    assert after["status"]["startedAt"] == before["status"]["startedAt"]
    assert web.daemon.qemu_pids() == pids
    assert web.boot_id() == boot_id


def test_disk_and_uefi_variables_outlive_a_stop_that_the_guest_is_asked_for(web: Web) -> None:
    launch, boot_id = web.vm()["status"]["launchID"], web.boot_id()
    web.ssh("echo kept > kept && sync")
    # Attributes first: non-volatile, for boot services and at run time (UEFI 2.10, section 8.2).
    web.ssh(rf"printf '\007\000\000\000kept' | sudo dd bs=16 status=none of={EFI_VARIABLE}")
    assert web.carmel("stop", "web") == "virtualmachine.carmel.dev/web stopped\n"
    off = web.daemon.wait_for("vm", "web", ended_by("GuestShutdown"))
    assert off["status"]["lastTermination"]["launchID"] == launch
    # The guest's own last words: nobody pulled the plug.
    assert "Power down" in web.carmel("logs", "web")
    assert web.daemon.qemu_pids() == []

    web.carmel("start", "web")
    assert web.boot_id() != boot_id
    assert web.vm()["status"]["launchID"] != launch
    assert web.ssh("cat", "kept") == "kept"
    assert web.ssh(f"cat {EFI_VARIABLE} | tail -c +5") == "kept"
    # The same machine to cloud-init: nothing is set up anew.
    assert web.ssh("sudo ls /var/lib/cloud/instances | wc -l") == "1"
    web.daemon.wait_for("vm", "web", has_agent, seconds=BOOT_SECONDS)


def test_the_same_image_from_a_server_is_verified_by_its_list(web: Web, site: Site) -> None:
    daemon = web.daemon
    uid = daemon.get("image", "debian")["metadata"]["uid"]
    data = (daemon.paths.default_datastore / "images" / uid / "disk.qcow2").read_bytes()
    url = site.publish("debian.qcow2", data)
    site.files["/SHA512SUMS"] = f"{hashlib.sha512(data).hexdigest()}  debian.qcow2\n".encode()
    source = {"url": url, "checksumURL": f"{site.url}/SHA512SUMS"}
    daemon.create("image", {"metadata": {"name": "pulled"}, "spec": {"source": {"url": source}}})
    pulled = daemon.wait_for("image", "pulled", lambda one: dig(one, "status", "phase") in {"Ready", "Failed"})
    assert pulled["status"]["phase"] == "Ready", pulled["status"]
    assert pulled["status"]["origin"] == url
    assert pulled["status"]["digest"] == f"sha512:{hashlib.sha512(data).hexdigest()}"

    site.files["/SHA512SUMS"] = f"{hashlib.sha512(b'other').hexdigest()}  debian.qcow2\n".encode()
    daemon.create("image", {"metadata": {"name": "forged"}, "spec": {"source": {"url": source}}})
    forged = daemon.wait_for("image", "forged", lambda one: dig(one, "status", "phase") in {"Ready", "Failed"})
    assert forged["status"]["error"]["code"] == "ImageDigestMismatch"
    for name in ("pulled", "forged"):
        daemon.delete("image", name)
        daemon.wait_gone("image", name)


def test_deleted_it_leaves_nothing(web: Web) -> None:
    assert json.loads(web.carmel("get", "vm", "-o", "json"))["items"]
    web.carmel("stop", "web", "--force")
    web.carmel("delete", "vm", "web", "--force")
    web.daemon.wait_gone("vm", "web")
    web.daemon.wait_no_volumes()
    web.daemon.wait_gone("secret", "web-user-data")
    assert web.daemon.leftovers() == []
