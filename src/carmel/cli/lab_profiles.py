"""The labs that ``carmel lab`` can make: manifests in ``labs/``, in ``labs/full/`` those of the full size.

A manifest has the machines of the lab, the one that people talk to first, networks that only they are on, and volumes
that they do not make themselves. All of them have the name of the first, or a name that begins with it. What is
labelled ``carmel.dev/lab-on`` is made on the machine of that role, by its own API.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from carmel.cli.manifests import parse_documents
from carmel.client.objects import JsonObject, dig, metadata
from carmel.errors import NotFound

LAB_LABEL = "carmel.dev/lab"
SIZE_LABEL = "carmel.dev/lab-size"
ROLE_LABEL = "carmel.dev/lab-role"
ON_LABEL = "carmel.dev/lab-on"
HOST, SMART_NIC, BARE = "host", "smartnic", "bare"
"""A ``bare`` machine runs nothing of ours."""
MICRO, FULL = "micro", "full"
API, RELAY = "api", "relay"
"""What forwards are called: to the machine's own API, and to that of its SmartNIC."""
_DESCRIPTION = "carmel.dev/description"


@dataclass(frozen=True, slots=True)
class LabMachine:
    """``manifest`` is that of a VirtualMachine."""

    manifest: JsonObject

    @property
    def name(self) -> str:
        return metadata(self.manifest, "name")

    @property
    def role(self) -> str:
        return str(dig(self.manifest, "metadata", "labels", ROLE_LABEL) or HOST)

    @property
    def description(self) -> str:
        return description_of(self.manifest)

    @property
    def is_bare(self) -> bool:
        return self.role == BARE

    @property
    def image(self) -> str:
        """The image that it starts from, which is also the name of the recipe that makes it. Empty: there is none."""
        kernel = dig(self.manifest, "spec", "firmware", "imageRef", "name")
        return str(kernel or dig(self.manifest, "spec", "disks", 0, "imageRef", "name") or "")

    @property
    def secret(self) -> tuple[str, str]:
        """The Secret with the machine's keys, and the key in it. A bare one has none."""
        reference = dig(self.manifest, "spec", "cloudInit", "userDataSecretRef")
        return reference["name"], reference["key"]

    def guest_port(self, forward: str) -> int:
        """The port of the machine that the forward of that name leads to. Raises ``NotFound``."""
        for nic in dig(self.manifest, "spec", "networks"):
            for one in nic.get("forwards") or []:
                if one["name"] == forward:
                    return int(one["guestPort"])
        raise NotFound(f"the manifest of {self.name} has no forward that is called {forward}")


@dataclass(frozen=True, slots=True)
class Profile:
    """A lab in one size. ``networks`` and ``volumes`` are manifests, ``on_smart_nic`` those of what is made on the
    SmartNIC; there is at least one machine, and the first is not bare."""

    name: str
    size: str
    machines: tuple[LabMachine, ...]
    networks: tuple[JsonObject, ...] = ()
    volumes: tuple[JsonObject, ...] = ()
    on_smart_nic: tuple[JsonObject, ...] = ()

    @property
    def host(self) -> LabMachine:
        """The machine that the lab is called by."""
        return self.machines[0]

    @property
    def smart_nics(self) -> tuple[LabMachine, ...]:
        return tuple(machine for machine in self.machines if machine.role == SMART_NIC)

    @property
    def images(self) -> tuple[str, ...]:
        """Those that are made here: of the machines, and what is sent to the SmartNIC."""
        names = [*(machine.image for machine in self.machines), *self.sent_images]
        return tuple(dict.fromkeys(name for name in names if name))

    @property
    def sent_images(self) -> tuple[str, ...]:
        """Images that the SmartNIC has from here, by the same name."""
        return tuple(
            metadata(one, "name")
            for one in self.on_smart_nic
            if one["kind"] == "Image" and "upload" in dig(one, "spec", "source")
        )

    def named(self, name: str) -> Profile:
        """The same lab by another name: each of its objects, and what they refer to, is called so or begins so. What is
        made on the SmartNIC is alone there and keeps its names."""
        naming = _Naming(self, name)
        return Profile(
            self.name,
            self.size,
            tuple(LabMachine(naming.object_of(machine.manifest)) for machine in self.machines),
            tuple(naming.object_of(network) for network in self.networks),
            tuple(naming.object_of(volume) for volume in self.volumes),
            self.on_smart_nic,
        )


class _Naming:
    """Gives the objects of ``profile`` other names, and says which lab they are of."""

    def __init__(self, profile: Profile, name: str) -> None:
        self._before, self._after = profile.host.name, name
        self._labels = {LAB_LABEL: profile.name, SIZE_LABEL: profile.size}
        self._networks = {metadata(network, "name") for network in profile.networks}

    def object_of(self, manifest: JsonObject) -> JsonObject:
        made = copy.deepcopy(manifest)
        self._rename(made["metadata"])
        made["metadata"]["labels"] = (made["metadata"].get("labels") or {}) | self._labels
        spec = made["spec"]
        for reference in (dig(spec, "cloudInit", "userDataSecretRef"), spec.get("datastoreRef")):
            self._rename(reference)
        for disk in spec.get("disks") or []:
            self._rename(disk.get("volumeRef"))
        for nic in spec.get("networks") or []:
            if dig(nic, "networkRef", "name") in self._networks:
                self._rename(nic["networkRef"])
        return made

    def _rename(self, named: JsonObject | None) -> None:
        if named is not None:
            named["name"] = self._after + named["name"].removeprefix(self._before)


def description_of(vm: JsonObject) -> str:
    """Of a machine of any lab: what it is."""
    return str(dig(vm, "metadata", "annotations", _DESCRIPTION) or "")


def profiles() -> list[Profile]:
    """All there are, by name; of each the micro size first."""
    folder = resources.files("carmel.cli") / "labs"
    found = [*_in(folder, MICRO), *_in(folder / FULL, FULL)]
    return sorted(found, key=lambda profile: (profile.name, profile.size != MICRO))


def find_profile(name: str, size: str) -> Profile:
    """Raises ``NotFound`` (``ProfileNotFound``)."""
    known = profiles()
    for profile in known:
        if (profile.name, profile.size) == (name, size):
            return profile
    sizes = [profile.size for profile in known if profile.name == name]
    if sizes:
        raise NotFound(f"the lab {name} has no size {size}", code="ProfileNotFound", hint=f"it has: {', '.join(sizes)}")
    names = ", ".join(dict.fromkeys(profile.name for profile in known))
    raise NotFound(f"there is no lab {name!r}", code="ProfileNotFound", hint=f"there are: {names}")


def _in(folder: Traversable, size: str) -> list[Profile]:
    if not folder.is_dir():
        return []
    files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
    return [
        _profile(file.name.removesuffix(".yaml"), size, parse_documents(file.read_text("utf-8"), file.name))
        for file in files
    ]


def _profile(name: str, size: str, documents: Iterable[JsonObject]) -> Profile:
    machines, found = list[LabMachine](), {"Network": list[JsonObject](), "Volume": list[JsonObject]()}
    on_smart_nic = list[JsonObject]()
    for document in documents:
        if dig(document, "metadata", "labels", ON_LABEL) == SMART_NIC:
            on_smart_nic.append(document)
        elif document["kind"] == "VirtualMachine":
            machines.append(LabMachine(document))
        else:
            found[document["kind"]].append(document)
    return Profile(name, size, tuple(machines), tuple(found["Network"]), tuple(found["Volume"]), tuple(on_smart_nic))
