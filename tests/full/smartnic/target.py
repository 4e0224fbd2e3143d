"""Remote storage for tests: the kernel's NVMe over TCP target (nvmet), on the SmartNIC's own loopback.

It asks nobody for a password: who may connect is decided by the name that they say they have. That is what storage
networks have that are separate from all others, as the one that this lab's NIC has with itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.system.lab.machine import LabMachine

NQN = "nqn.2014-08.org.nvmexpress:uuid:7a1f3c52-8d60-4d55-9b21-2f6a8a0c1a11"
HOST_NQN = "nqn.2014-08.org.nvmexpress:uuid:0c4b6d2e-53a1-4f0a-8a52-6f1f2f1d7b10"
PORT = 4420
_CONFIG = "/sys/kernel/config/nvmet"


@dataclass(frozen=True, slots=True)
class Target:
    """Namespace 1 is the NIC's drive, 2 a file that outlives a power cut."""

    nic: LabMachine

    def start(self) -> None:
        """Also after the NIC was started anew: configfs forgets."""
        self._run(
            f"""
modprobe -a nvmet nvmet_tcp
[ -d {_CONFIG} ] || mount -t configfs configfs /sys/kernel/config
cd {_CONFIG} || exit 1
mkdir -p hosts/{HOST_NQN} subsystems/{NQN} ports/1
cd subsystems/{NQN}
[ -e allowed_hosts/{HOST_NQN} ] || ln -s {_CONFIG}/hosts/{HOST_NQN} allowed_hosts/
drive=$(for c in /sys/class/nvme/nvme*; do grep -q pcie $c/transport && ls $c | grep -o '^nvme[0-9]*n1'; done)
mkdir -p namespaces/1 namespaces/2
echo -n /dev/$drive >namespaces/1/device_path; echo 1 >namespaces/1/enable
f=/var/lib/carmel/remote.raw
[ -e $f ] || dd if=/dev/zero of=$f bs=1M count=64 2>/dev/null
echo -n $f >namespaces/2/device_path; echo 1 >namespaces/2/enable
cd {_CONFIG}/ports/1
echo tcp >addr_trtype; echo ipv4 >addr_adrfam; echo 127.0.0.1 >addr_traddr; echo {PORT} >addr_trsvcid
"""
        )
        self.open()

    def open(self) -> None:
        self._run(f"ln -s {_CONFIG}/subsystems/{NQN} {_CONFIG}/ports/1/subsystems/; sleep 0")

    def close(self) -> None:
        """As if the network went: nobody is answered, and connections end."""
        self._run(f"rm {_CONFIG}/ports/1/subsystems/{NQN}")

    def _run(self, script: str) -> None:
        said = self.nic.shell(f"{script.strip()}\necho do''ne")
        assert "done" in said, said
