from __future__ import annotations

from typing import Any

import click
import pytest

from carmel.cli.options import DiskOption, DiskType, ImageNameType, LabelType, PublishType, SizeType, UserDataType
from carmel.cli.run_manifests import VmOptions, secret_manifest, vm_manifest
from carmel.resources.admission import admit
from carmel.resources.core import SECRET, merge_string_data
from carmel.resources.virtualmachine import VIRTUAL_MACHINE


def wanted(**changes: Any) -> VmOptions:
    given: dict[str, Any] = {
        "name": "web",
        "cpus": 2,
        "memory": "1Gi",
        "dedicated": False,
        "page_size": None,
        "near": (),
        "nested": False,
        "disks": (),
        "network": "default",
        "forwards": (),
        "user_data": None,
        "ssh_user": None,
        "nonce": None,
        "labels": (),
    }
    return VmOptions.read(**{**given, **changes})


def disk(text: str) -> DiskOption:
    return DiskType().convert(text, None, None)


def test_wishes_for_the_place_stand_in_the_spec_only_when_there_are_any() -> None:
    wishes = wanted(dedicated=True, page_size="2Mi", near=("nvme0", "eth0"), nested=True)
    spec = vm_manifest(wishes, "micro", direct_kernel=True, key=None)["spec"]
    assert spec["cpu"] == {"count": 2, "policy": "Dedicated", "nestedVirtualization": True}
    assert spec["memory"] == {"size": "1Gi", "pageSize": "2Mi"}
    assert spec["placement"] == {"near": ["nvme0", "eth0"]}
    assert "placement" not in vm_manifest(wanted(), "micro", direct_kernel=True, key=None)["spec"]


def test_a_disk_image_gets_uefi_a_root_disk_a_key_and_a_way_in() -> None:
    vm = vm_manifest(wanted(disks=(disk("size=20Gi"),)), "debian", direct_kernel=False, key="ssh-ed25519 AAAA me")
    assert vm["spec"] == {
        "cpu": {"count": 2},
        "memory": {"size": "1Gi"},
        "firmware": {"type": "UEFI"},
        "powerState": "PoweredOn",
        "disks": [{"name": "root", "size": "20Gi", "imageRef": {"name": "debian"}}],
        "networks": [
            {
                "name": "net0",
                "networkRef": {"name": "default"},
                "forwards": [{"name": "ssh", "protocol": "TCP", "guestPort": 22}],
            }
        ],
        "cloudInit": {"sshAuthorizedKeys": ["ssh-ed25519 AAAA me"], "hostName": "web"},
    }
    assert vm["metadata"]["annotations"] == {"carmel.dev/ssh-user": "debian"}


def test_a_kernel_image_is_started_directly() -> None:
    vm = vm_manifest(wanted(nonce="n1", disks=(disk("size=1Gi"),)), "micro", direct_kernel=True, key=None)
    assert vm["spec"]["firmware"] == {
        "type": "DirectKernel",
        "imageRef": {"name": "micro"},
        "commandLine": "carmel.nonce=n1",
    }
    assert vm["spec"]["disks"] == [{"name": "data1", "size": "1Gi"}]
    assert "cloudInit" not in vm["spec"]
    assert "forwards" not in vm["spec"]["networks"][0]


def test_disks_get_names_that_nobody_has() -> None:
    given = (
        disk("volume=old"),
        disk("size=1Gi,name=data1,bus=nvme,keep=yes"),
        disk("size=2Gi"),
        disk("name=root,size=9Gi"),
    )
    vm = vm_manifest(wanted(disks=given), "ubuntu", direct_kernel=False, key="k")
    assert vm["spec"]["disks"] == [
        {"name": "root", "size": "9Gi", "imageRef": {"name": "ubuntu"}},
        {"name": "data2", "volumeRef": {"name": "old"}},
        {"name": "data1", "size": "1Gi", "bus": "nvme", "deletePolicy": "Retain"},
        {"name": "data3", "size": "2Gi"},
    ]
    assert vm["metadata"]["annotations"]["carmel.dev/ssh-user"] == "ubuntu"


@pytest.mark.parametrize("direct_kernel", [True, False])
def test_the_server_takes_what_is_made(direct_kernel: bool) -> None:
    options = wanted(
        disks=(disk("size=20Gi"), disk("size=1Gi,bus=nvme")),
        forwards=(PublishType().convert("127.0.0.1:8080:80/udp", None, None), PublishType().convert("443", None, None)),
        user_data="#cloud-config\n",
        labels=("app=web",),
        nonce="x",
    )
    admit(VIRTUAL_MACHINE, vm_manifest(options, "debian", direct_kernel=direct_kernel, key="ssh-ed25519 A"), None)
    admit(SECRET, merge_string_data(secret_manifest(options)), None)


def test_a_published_ssh_port_is_the_way_in() -> None:
    forward = PublishType().convert("2222:22", None, None)
    vm = vm_manifest(wanted(forwards=(forward,)), "debian", direct_kernel=False, key="k")
    assert vm["spec"]["networks"][0]["forwards"] == [{"protocol": "TCP", "guestPort": 22, "hostPort": 2222}]


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "two words"},
        {"nonce": "x" * 300},
        {"nonce": "a\nb"},
        {"network": "none", "forwards": ({"guestPort": 80},)},
        {"labels": ("novalue",)},
        {"disks": (disk("size=1Gi,name=a"), disk("size=1Gi,name=a"))},
        {"disks": (disk("size=1Gi"), disk("name=b"))},
    ],
)
def test_wishes_that_do_not_fit_together(changes: dict[str, Any]) -> None:
    with pytest.raises(click.UsageError):
        wanted(**changes)


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (PublishType(), "80:"),
        (PublishType(), "0:80"),
        (PublishType(), "80:70000"),
        (PublishType(), "80/sctp"),
        (PublishType(), "a:80"),
        (DiskType(), "20Gi"),
        (DiskType(), "size=20Gi,size=3Gi"),
        (DiskType(), "size=huge"),
        (DiskType(), "size=1Gi,bus=ide"),
        (DiskType(), "volume=a,size=1Gi"),
        (DiskType(), "keep=maybe"),
        (DiskType(), "name=No"),
        (SizeType(), "1Zi"),
        (LabelType(), "-a"),
        (LabelType(), "a" * 64),
        (ImageNameType(), "https://example.org/x"),
        (ImageNameType(), "a/../b"),
        (UserDataType(), "/nonexistent/user-data"),
    ],
)
def test_options_that_cannot_be_read(reader: click.ParamType[Any], text: str) -> None:
    with pytest.raises(click.BadParameter):
        reader.convert(text, None, None)
