"""What each command prints and how it ends, against the real API."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
import yaml

from carmel.resources.core import SECRET
from carmel.resources.rbac import ROLE_BINDING
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from tests.unit.cli.conftest import Carmel
from tests.unit.client.world import World

MANIFEST = """
apiVersion: carmel.dev/v1alpha1
kind: VirtualMachine
metadata: {name: NAME, labels: {app: x}}
spec:
  disks:
  - {name: root, size: 1Gi}
  - {name: kept, size: 2Gi, deletePolicy: Retain}
  - {name: old, volumeRef: {name: archive}}
  networks:
  - {name: net0, forwards: [{guestPort: 22}]}
"""


@pytest.fixture
def vm(carmel: Carmel, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A running VM of the test's own name."""
    name: str = request.node.name.replace("_", "-").removeprefix("test-")[:40].strip("-")
    file = tmp_path / "vm.yaml"
    file.write_text(MANIFEST.replace("NAME", name))
    assert (
        carmel("create", "-f", str(file), "--wait=running", "-o", "name").out == f"virtualmachine.carmel.dev/{name}\n"
    )
    return name


def test_get_prints_the_servers_table(carmel: Carmel, vm: str) -> None:
    lines = carmel("get", "vm", vm).out.splitlines()
    assert lines[0].split() == ["NAME", "POWER", "READY", "CPUS", "MEMORY", "ADDRESS", "AGE"]
    assert lines[1].split()[:6] == [vm, "PoweredOn", "True", "1", "1Gi", "10.0.2.15"]
    assert len(carmel("get", "vm", vm, "--no-headers").out.splitlines()) == 1
    assert "ACCELERATOR" in carmel("get", "vms", "-o", "wide").out
    assert carmel("get", "vm", "-A").out.startswith("NAMESPACE")


def test_get_prints_objects(carmel: Carmel, vm: str) -> None:
    obj = carmel("get", "vm", vm, "-o", "json").json()
    assert (obj["kind"], obj["metadata"]["name"]) == ("VirtualMachine", vm)
    assert "managedFields" not in obj["metadata"]
    assert yaml.safe_load(carmel("get", f"vm/{vm}", "-o", "yaml").out)["spec"] == obj["spec"]
    listed = carmel("get", "vm", "-l", "app=x", "-o", "json").json()
    assert listed["kind"] == "List"
    assert vm in [one["metadata"]["name"] for one in listed["items"]]
    assert carmel("get", "vm", vm, "-o", "jsonpath={.status.powerState}").out == "PoweredOn\n"


def test_get_finds_kinds_by_any_of_their_names(carmel: Carmel) -> None:
    for word in ("net", "network", "networks", "networks.carmel.dev", "NETWORK", "networks.v1alpha1.carmel.dev"):
        assert carmel("get", word, "-o", "name").out == "network.carmel.dev/default\n"
    assert carmel("get", "ns,host", "-o", "name").out.split() == [
        "namespace/default",
        "namespace/lab",
        "host.carmel.dev/pi",
    ]


def test_get_says_when_there_is_nothing(carmel: Carmel) -> None:
    nothing = carmel("get", "volumes", "-n", "lab")
    assert (nothing.status, nothing.out, nothing.err) == (0, "", "No volumes in namespace lab.\n")
    assert carmel("-n", "lab", "get", "volumes").err == nothing.err
    assert carmel("get", "volumes", "-o", "json").json()["items"] == []


def test_errors_have_the_exit_status_of_their_sort(carmel: Carmel, vm: str, tmp_path: Path) -> None:
    assert carmel("get").status == 2
    assert carmel("nonsense").status == 2
    assert carmel("get", "vm", "-o", "xml").status == 2
    assert carmel("get", "unicorn").status == 3
    assert carmel("get", "vm", "nobody").status == 3
    assert carmel("wait", "vm", vm, "--for=stopped", "--timeout=0.2s").status == 6
    assert carmel("patch", "vm", vm, "-p", "spec: {cpu: {count: 0}}").status == 5
    assert carmel("patch", "vm", vm, "-p", "spec: {cpux: 1}").status == 5
    file = tmp_path / "again.yaml"
    file.write_text(MANIFEST.replace("NAME", vm))
    assert carmel("create", "-f", str(file)).status == 4


def test_errors_are_json_for_scripts(carmel: Carmel, vm: str) -> None:
    refused = carmel("patch", "vm", vm, "-p", "spec: {cpu: {count: 0}}", "-o", "json")
    assert refused.out == ""
    error = json.loads(refused.err)
    assert error.keys() == {"code", "message", "hint", "retryable", "field"}
    assert (error["code"], error["field"], error["retryable"]) == ("Invalid", "spec.cpu.count", False)
    usage = json.loads(carmel("get", "--output=json").err)
    assert (usage["code"], usage["hint"]) == ("Usage", "`carmel get --help` shows how it is used")


def test_without_a_daemon_it_says_how_to_start_one(lone: Carmel, home: Path) -> None:
    outcome = lone("get", "vm")
    assert outcome.status == 1
    assert outcome.err == (
        f"error: the host's daemon is not running: nobody listens on {home}/run/api.sock\n"
        "hint: start it with `systemctl start carmeld`, or in a terminal with `carmeld`\n"
    )


def test_describe_shows_conditions_events_and_no_escape_sequences(carmel: Carmel, vm: str) -> None:
    carmel("wait", "vm", vm, "--for=ready")
    told = carmel("describe", "vm", vm).out
    for expected in ("Power:", "PoweredOn", "Ports:", "127.0.0.1:40022 -> 22/tcp", "Conditions:", "volumeName:"):
        assert expected in told
    assert "\x1b" not in told
    assert carmel("describe", "vm", vm, "nobody").status == 3


def test_describe_hides_what_secrets_hold(carmel: Carmel, tmp_path: Path) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: hidden}\nstringData: {userdata: hunter2}\n")
    assert carmel("apply", "-f", str(file)).out == "secret/hidden created\n"
    told = carmel("describe", "secret", "hidden").out
    assert "userdata: ***" in told
    assert base64.b64encode(b"hunter2").decode() not in told


def test_apply_says_what_it_did(carmel: Carmel, tmp_path: Path) -> None:
    file = tmp_path / "vm.yaml"
    file.write_text(MANIFEST.replace("NAME", "applied"))
    name = "virtualmachine.carmel.dev/applied"
    assert carmel("apply", "-f", str(file), "--dry-run").out == f"{name} created (dry run)\n"
    assert carmel("get", "vm", "applied").status == 3
    assert carmel("apply", "-f", str(file), "--wait=ready").out == f"{name} created\n"
    file.write_text(file.read_text() + "  cpu: {count: 2}\n")
    assert carmel("apply", "-f", str(file)).out == f"{name} configured\n"
    carmel("wait", "vm", "applied")
    assert carmel("apply", "-f", str(tmp_path), "-o", "json").json()["spec"]["cpu"]["count"] == 2


def test_apply_does_not_take_the_fields_of_others(carmel: Carmel, tmp_path: Path, world: World) -> None:
    body = {"metadata": {"name": "shared", "namespace": "default", "labels": {"owner": "them"}}}
    world.do(lambda store: store.create(VIRTUAL_MACHINE, body))
    file = tmp_path / "vm.yaml"
    file.write_text(MANIFEST.replace("NAME", "shared").replace("app: x", "owner: us"))
    refused = carmel("apply", "-f", str(file))
    assert refused.status == 4
    assert "force-conflicts" in refused.err
    assert carmel("apply", "-f", str(file), "--force-conflicts").status == 0


def test_apply_checks_all_before_it_changes_anything(carmel: Carmel, tmp_path: Path) -> None:
    file = tmp_path / "vm.yaml"
    file.write_text(f"{MANIFEST.replace('NAME', 'half')}\n---\napiVersion: v1\nkind: Unicorn\nmetadata: {{name: a}}\n")
    assert carmel("apply", "-f", str(file)).status == 3
    assert carmel("get", "vm", "half").status == 3


def test_labels_and_annotations(carmel: Carmel, vm: str) -> None:
    name = f"virtualmachine.carmel.dev/{vm}"
    assert carmel("label", "vm", vm, "tier=front").out == f"{name} labelled\n"
    taken = carmel("label", "vm", vm, "tier=back")
    assert (taken.status, "--overwrite" in taken.err) == (4, True)
    assert carmel("label", "vm", vm, "tier=back", "--overwrite").status == 0
    assert carmel("label", "vm", vm, "tier-").status == 0
    assert carmel("annotate", "vm", vm, "note=a b").out == f"{name} annotated\n"
    meta = carmel("get", "vm", vm, "-o", "json").json()["metadata"]
    assert (meta["labels"], meta["annotations"]) == ({"app": "x"}, {"note": "a b"})
    assert carmel("label", "vm", vm).status == 2


def test_edit_writes_what_the_editor_left(
    carmel: Carmel, vm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("EDITOR", "sed -i 's/count: 1/count: 3/'")
    assert carmel("edit", "vm", vm).out == f"virtualmachine.carmel.dev/{vm} edited\n"
    assert carmel("get", "vm", vm, "-o", "jsonpath=.spec.cpu.count").out == "3\n"
    monkeypatch.setenv("VISUAL", "true")
    assert carmel("edit", "vm", vm).err == "Nothing was changed.\n"
    monkeypatch.setenv("VISUAL", "false")
    assert carmel("edit", "vm", vm).status == 5
    assert list(tmp_path.glob("carmel-*")) == []
    monkeypatch.setenv("VISUAL", "sed -i 's/count: 3/count: 0/'")
    refused = carmel("edit", "vm", vm)
    kept = list(tmp_path.glob("carmel-*"))
    assert refused.status == 5
    assert len(kept) == 1
    assert str(kept[0]) in refused.err
    assert "count: 0" in kept[0].read_text()


def test_power_verbs_wait_until_it_is_so(carmel: Carmel, vm: str) -> None:
    name = f"virtualmachine.carmel.dev/{vm}"
    launch = carmel("get", "vm", vm, "-o", "jsonpath=.status.launchID").out
    for verb, said, state in (
        ("pause", "paused", "Paused"),
        ("resume", "running", "PoweredOn"),
        ("suspend", "suspended", "Suspended"),
        ("start", "running", "PoweredOn"),
        ("stop", "stopped", "PoweredOff"),
    ):
        assert carmel(verb, vm).out == f"{name} {said}\n"
        assert carmel("get", "vm", vm, "-o", "jsonpath=.status.powerState").out == f"{state}\n"
    assert carmel("pause", vm).status == 5
    assert carmel("start", vm, "-o", "json").json()["status"]["powerState"] == "PoweredOn"
    assert carmel("restart", vm).out == f"{name} restarted\n"
    assert carmel("get", "vm", vm, "-o", "jsonpath=.status.launchID").out != launch
    assert carmel("stop", vm, "--force", "--no-wait").out == f"{name} stopping\n"
    assert carmel("get", "vm", vm, "-o", "jsonpath=.spec.powerOffMode").out == "Hard\n"
    assert carmel("stop", vm).status == 0
    assert carmel("get", "vm", vm, "-o", "jsonpath=.spec.powerOffMode").out == "TrySoft\n"


def test_a_wrong_name_among_many_changes_nothing(carmel: Carmel, vm: str) -> None:
    assert carmel("stop", vm, "nobody").status == 3
    assert carmel("delete", "vm", vm, "nobody", "--force").status == 3
    assert carmel("get", "vm", vm, "-o", "jsonpath=.spec.powerState").out == "PoweredOn\n"


def test_delete_says_what_goes_and_never_without_being_told(carmel: Carmel, vm: str) -> None:
    refused = carmel("delete", "vm", vm)
    assert refused.status == 5
    assert refused.err.splitlines() == [
        f"virtual machine {vm}",
        f"  disk root (volume {vm}-root): goes",
        f"  disk kept (volume {vm}-kept): stays",
        "  disk old (volume archive): stays",
        "error: nothing was deleted: there is no terminal to ask on",
        "hint: --force deletes without asking",
    ]
    assert carmel("get", "vm", vm).status == 0
    assert carmel("delete", "vm", vm, "--force").out == f"virtualmachine.carmel.dev/{vm} deleted\n"
    assert carmel("get", "vm", vm).status == 3
    assert carmel("delete", "vm", vm, "--yes").status == 3
    assert carmel("delete", "vm", vm, "--yes", "--ignore-not-found").status == 0
    assert carmel("delete", "vm", "--yes").status == 2


def test_events_tell_what_happened_to_one(carmel: Carmel, vm: str) -> None:
    carmel("wait", "vm", vm)
    lines = carmel("events", "vm", vm).out.splitlines()
    assert lines[0].split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert f"virtualmachine/{vm}" in lines[1]
    assert "\x1b" not in lines[1]


def test_explain_reads_the_servers_schema(carmel: Carmel) -> None:
    told = carmel("explain", "vm.spec.disks").out
    assert "FIELD:    disks <[]Object>" in told
    assert "one of: virtio, nvme, scsi, usb" in told
    assert "name  <string> -required-" in told
    assert "    topology  <Object>\n" not in carmel("explain", "vm.spec.cpu").out
    assert "    sockets  <integer>" in carmel("explain", "vm.spec.cpu", "--recursive").out
    unknown = carmel("explain", "vm.spec.cpus")
    assert (unknown.status, "cpu, memory" in unknown.err) == (3, True)


def test_logs_and_their_end(carmel: Carmel, vm: str) -> None:
    assert carmel("logs", vm).out == "one\ntwo\nthree\n"
    assert carmel("logs", vm, "--tail", "1", "-f").out == "three\n"
    assert carmel("logs", "nobody").status == 3


def test_ssh_goes_by_the_forward_with_the_users_key(
    carmel: Carmel, vm: str, home: Path, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr("os.execvp", lambda _file, argv: called.append(argv))
    monkeypatch.setattr("carmel.cli.ssh.await_server", lambda *_words: None)
    key = home / ".config/carmel/id_ed25519"
    key.parent.mkdir(parents=True)
    key.touch()
    carmel("annotate", "vm", vm, "carmel.dev/ssh-user=debian")
    assert carmel("ssh", vm, "--", "uname", "-a").status == 0
    assert carmel("ssh", f"root@{vm}").status == 0
    uid = carmel("get", "vm", vm, "-o", "jsonpath=.metadata.uid").out.strip()
    first = called[0]
    assert first[:5] == ["ssh", "-p", "40022", "-l", "debian"]
    assert f'UserKnownHostsFile="{home}/.config/carmel/known_hosts.d/{uid}"' in first
    assert first[first.index("-i") + 1] == str(key)
    assert first[-4:] == ["--", "127.0.0.1", "uname", "-a"]
    assert called[1][called[1].index("-l") + 1] == "root"
    carmel("stop", vm)
    assert carmel("ssh", vm).status == 5


def test_host_is_for_people_or_for_scripts(carmel: Carmel) -> None:
    told = carmel("host").out
    assert "Raspberry Pi 4, aarch64" in told
    assert "1 GiB of 4 GiB given to VMs" in told
    assert carmel("host", "-o", "json").json()["kind"] == "Host"
    assert carmel("host", "nowhere").status == 3


def test_kinds_and_versions(carmel: Carmel) -> None:
    rows = [line.split() for line in carmel("api-resources").out.splitlines()]
    assert ["virtualmachines", "vm,vms", "carmel.dev/v1alpha1", "true", "VirtualMachine"] in rows
    assert "virtualmachines.carmel.dev" in carmel("api-resources", "-o", "name").out.split()
    both = carmel("version", "-o", "json").json()
    assert both["server"]["gitVersion"].endswith(both["client"]["version"])


def test_images(carmel: Carmel, tmp_path: Path, world: World) -> None:
    assert carmel("image", "pull", "debian-13").out.startswith("image.carmel.dev/debian-13 ready after")
    assert carmel("image", "pull", "debian-13").status == 4
    assert carmel("image", "pull", "https://example.org/Old%20Disk.qcow2").status == 2
    pulled = carmel(
        "image", "pull", "https://example.org/Old%20Disk.qcow2", "--checksum", f"sha256:{'0' * 64}", "-o", "json"
    )
    assert (pulled.status, pulled.json()["metadata"]["name"], pulled.err) == (0, "old-20disk", "")
    assert carmel("image", "build", "micro", "-o", "json").json()["status"]["type"] == "Kernel"
    broken = carmel("image", "pull", "broken")
    assert (broken.status, "its digest is wrong" in broken.err, "hint: try again" in broken.err) == (5, True, True)
    assert carmel("get", "image", "broken").status == 3
    assert "ubuntu-24.04" in carmel("image", "list", "--catalog", "-o", "name").out.split()
    assert carmel("image", "list", "--catalog", "-o", "json").json()[0]["user"] == "debian"
    assert "debian-13" in carmel("image", "list").out
    assert carmel("image", "delete", "debian-13").status == 5
    assert carmel("image", "delete", "debian-13", "--force").out == "image.carmel.dev/debian-13 deleted\n"


def test_an_upload_that_is_refused_leaves_no_image(carmel: Carmel, tmp_path: Path, world: World) -> None:
    good, bad = tmp_path / "Good_Disk.raw", tmp_path / "bad.qcow2"
    good.write_bytes(b"x" * 300_000)
    bad.write_bytes(b"hostile")
    sent = carmel("image", "import", str(good))
    assert sent.out.startswith("image.carmel.dev/good-disk ready after")
    assert "100%" in sent.err
    assert world.streams.uploads["good-disk"] == good.read_bytes()
    refused = carmel("image", "import", str(bad))
    assert (refused.status, "backing file" in refused.err) == (5, True)
    assert carmel("get", "image", "bad").status == 3
    assert carmel("image", "import", str(tmp_path / "nothing")).status == 2


def test_an_export_is_whole_with_holes_or_not_at_all(carmel: Carmel, tmp_path: Path, world: World) -> None:
    source, target = tmp_path / "disk.raw", tmp_path / "out.img"
    source.write_bytes(b"x" * 100_000 + bytes(4_000_000))
    assert carmel("image", "import", str(source)).status == 0
    assert carmel("image", "export", "disk", "--to", str(target)).out == f"image disk written to {target}\n"
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 2_000_000
    again = carmel("image", "export", "disk", "--to", str(target))
    assert (again.status, "--force" in again.err) == (5, True)
    target.write_bytes(b"older")
    world.streams.breaks_off = True
    broken = carmel("image", "export", "disk", "--to", str(target), "--force")
    assert broken.status == 1
    assert target.read_bytes() == b"older"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
    world.streams.breaks_off = False
    assert carmel("image", "export", "disk", "--to", str(target), "--force").status == 0
    assert target.read_bytes() == source.read_bytes()
    assert carmel("image", "export", "nothing", "--to", str(tmp_path / "x")).status == 3
    assert not (tmp_path / "x").exists()
    assert carmel("image", "export", "disk", "--to", str(tmp_path / "no" / "folder")).status == 5


def test_a_token_for_another_user(carmel: Carmel, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARMEL_STATE_DIR", str(world.folder))
    (world.folder / "https.port").write_text("6443\n")
    (world.folder / "pki").mkdir(exist_ok=True)
    (world.folder / "pki/ca.crt").write_text("-----BEGIN CERTIFICATE-----\n")
    (world.folder / "pki/admin.token").write_text("secret\n")
    own = yaml.safe_load(carmel("kubeconfig").out)
    assert own["users"][0]["user"]["token"] == "secret"
    assert own["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    for address, server in (("192.0.2.10", "https://192.0.2.10:6443"), ("2001:db8::1", "https://[2001:db8::1]:6443")):
        elsewhere = yaml.safe_load(carmel("kubeconfig", "--address", address).out)
        assert elsewhere["clusters"][0]["cluster"]["server"] == server
        assert elsewhere["users"] == own["users"]
    given = yaml.safe_load(carmel("kubeconfig", "--user", "alice", "--role", "viewer", "-n", "lab").out)
    token = given["users"][0]["user"]["token"]
    assert given["contexts"][0]["context"]["namespace"] == "lab"
    stored = next(one for one in world.objects(SECRET, "carmel-system") if one["metadata"]["name"] == "token-alice")
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert base64.b64decode(stored["data"]["sha256"]).decode() == digest
    assert token not in str(stored)
    binding = world.objects(ROLE_BINDING, "lab")[0]
    assert (binding["roleRef"]["name"], binding["subjects"][0]["name"]) == ("viewer", "alice")
    again = yaml.safe_load(carmel("kubeconfig", "--user", "alice", "--role", "viewer", "-n", "lab").out)
    assert again["users"][0]["user"]["token"] != token
    assert carmel("kubeconfig", "--user", "alice").status == 2
