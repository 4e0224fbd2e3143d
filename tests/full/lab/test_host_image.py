"""The host image on an emulated dual-socket Arm server: what systemd, the kernel and the screen show.

One server for the module; its tests take it as it is, running, and leave it so.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from carmel.client.objects import JsonObject
from tests.full.lab.guests import VM_SECONDS, guest, make_image, remove, vm_status
from tests.full.lab.machine import BOOT_SECONDS, Machine, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def inner(machine: Machine) -> Iterator[str]:
    """The name of a VM that runs on the server."""
    make_image(machine)
    with machine.client() as client:
        # Dedicated: on one node, a VM that shares may run anywhere, and is not held.
        client.create(client.kind("vm"), "default", guest("one", cpu={"count": 1, "policy": "Dedicated"}))
    until(lambda: vm_status(machine, "one").get("powerState") == "PoweredOn", VM_SECONDS, machine.last_words)
    yield "one"
    remove(machine, "one")


def test_it_is_what_the_file_on_its_esp_says(machine: Machine) -> None:
    assert machine.ssh("hostname") == "lab-full"
    assert machine.ssh("stat -c %a /root/.ssh/authorized_keys /var/lib/carmel/pki/admin.token").split() == ["600"] * 2
    assert machine.ssh("systemctl is-active carmeld carmel-firstboot carmel-status ssh").split() == ["active"] * 4
    assert until(lambda: machine.ssh("systemctl is-system-running", check=False) == "running", BOOT_SECONDS)
    assert machine.ssh("systemctl list-units --failed --plain --no-legend") == ""
    assert machine.ssh("systemctl show -P Type carmeld") == "notify"
    assert machine.ssh("dpkg --audit") == ""


def test_the_root_has_grown_and_every_copy_is_its_own(machine: Machine) -> None:
    assert int(machine.ssh("df --output=size -B1 / | tail -1")) > 7 * 10**9
    assert len(machine.ssh("cat /etc/machine-id")) == 32
    passwords = machine.ssh("cut -d: -f2 /etc/shadow").split()
    assert all(password.startswith(("*", "!")) for password in passwords)


def test_no_port_is_open_but_those_that_were_asked_for(machine: Machine) -> None:
    """The local resolver's is on the loopback device, and resolves names only."""
    listening = [line.split()[3] for line in machine.ssh("ss -Hltn").splitlines()]
    assert {one.rpartition(":")[2] for one in listening if "127.0.0." not in one} == {"22", "17443"}
    datagrams = [line.split()[3] for line in machine.ssh("ss -Hlun").splitlines()]
    # A DHCP client's.
    assert {one.rpartition(":")[2] for one in datagrams if "127.0.0." not in one} <= {"68", "546"}


def test_the_screen_says_what_a_person_at_the_machine_needs(machine: Machine) -> None:
    def screen() -> str:
        text = machine.ssh("cat /dev/vcs1")
        return text if "Health" in text and "API" in text and "17443" in text else ""

    shown = until(screen, BOOT_SECONDS)
    columns = int(machine.ssh("stty -F /dev/tty1 size").split()[1])
    lines = [shown[start : start + columns].rstrip() for start in range(0, len(shown), columns)]
    page = "\n".join(lines)
    assert re.search(r"Carmel \S+ on lab-full", lines[0])
    assert re.search(r"API +https://10\.0\.2\.15:17443", page)
    fingerprint = machine.ssh("openssl x509 -in /var/lib/carmel/pki/ca.crt -noout -fingerprint -sha256")
    assert fingerprint.partition("=")[2].replace(":", "").lower() in page
    assert "4 CPUs" in page
    assert "KVM" in page
    assert "Alt+F2" in page
    assert machine.token not in shown


def test_a_vm_runs_under_kvm_in_a_scope_of_its_own(machine: Machine, inner: str) -> None:
    pid = machine.ssh("pgrep -x qemu-system-aar").split()[0]
    assert "/dev/kvm" in machine.ssh(f"ls -l /proc/{pid}/fd")
    assert machine.ssh(f"ps -o user= -p {pid}") == "carmel-qemu"[:8] or "carmel" in machine.ssh(f"ps -o user= -p {pid}")
    group = machine.ssh(f"cat /proc/{pid}/cgroup").removeprefix("0::")
    assert re.search(r"/carmel-vm-[^/]+\.scope$", group), group
    scope = group.rpartition("/")[2]
    assert machine.ssh(f"systemctl is-active {shlex.quote(scope)}") == "active"
    # The VM outlives the daemon, whatever way that goes.
    machine.ssh("systemctl kill -s KILL carmeld")
    machine.await_api()
    assert machine.ssh("pgrep -x qemu-system-aar").split()[0] == pid
    assert vm_status(machine, inner)["powerState"] == "PoweredOn"


def test_a_vms_scope_has_the_cpus_and_memory_that_carmel_says(machine: Machine, inner: str) -> None:
    """Read from the kernel's control group, compared with the VM's status."""
    placement: JsonObject = until(lambda: vm_status(machine, inner).get("placement") or {}, VM_SECONDS)
    pid = machine.ssh("pgrep -x qemu-system-aar").split()[0]
    group = "/sys/fs/cgroup" + machine.ssh(f"cat /proc/{pid}/cgroup").removeprefix("0::")
    cpus = machine.ssh(f"cat {group}/cpuset.cpus.effective")
    nodes = machine.ssh(f"cat {group}/cpuset.mems.effective")
    assert nodes == ",".join(str(node) for node in placement["memoryNodes"])
    for vcpu in placement["vcpus"]:
        assert _numbers(vcpu["hostCpus"]) <= _numbers(cpus)
    # Set on the scope, not merely inherited.
    assert machine.ssh(f"cat {group}/cpuset.cpus") != ""


def test_lvm_works_with_its_tools_and_the_kernels_device_mapper(machine: Machine) -> None:
    machine.ssh("pvcreate -y /dev/nvme0n1 && vgcreate lab /dev/nvme0n1 && lvcreate -y -L 64M -n one lab")
    machine.ssh("mkfs.ext4 -q /dev/lab/one && mkdir -p /mnt/one && mount /dev/lab/one /mnt/one && touch /mnt/one/here")
    assert machine.ssh("lvs --noheadings -o lv_name,lv_size lab").split() == ["one", "64.00m"]
    assert machine.ssh("ls /mnt/one").split() == ["here", "lost+found"]
    machine.ssh("umount /mnt/one && vgremove -y lab && pvremove -y /dev/nvme0n1")


def test_an_nfs_export_can_be_mounted(machine: Machine) -> None:
    """The server is the machine itself, for this test: its units are masked on the image."""
    machine.ssh("mkdir -p /srv/nfs /mnt/nfs && touch /srv/nfs/there && systemctl unmask nfs-server nfs-mountd")
    machine.ssh("mkdir -p /run/rpc_pipefs; modprobe nfsd && mount -t nfsd nfsd /proc/fs/nfsd || true")
    machine.ssh("rpc.mountd --no-nfs-version 3 && rpc.nfsd --no-nfs-version 3 --host 127.0.0.1 1")
    machine.ssh("exportfs -o rw,fsid=0,no_root_squash,insecure 127.0.0.1:/srv/nfs")
    try:
        machine.ssh("mount -t nfs4 -o vers=4.2,sec=sys 127.0.0.1:/ /mnt/nfs", seconds=600)
        assert machine.ssh("cat /proc/mounts | grep -c ' /mnt/nfs nfs4 '") == "1"
        machine.ssh("echo written >/mnt/nfs/there && sync && umount /mnt/nfs")
        assert machine.ssh("cat /srv/nfs/there") == "written"
    finally:
        machine.ssh("exportfs -ua; rpc.nfsd 0; pkill rpc.mountd; systemctl mask nfs-server", check=False)


def _numbers(text: str) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
