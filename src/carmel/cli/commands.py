"""Which commands there are, in which order help shows them, and in which module each is. Nothing is imported here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: ``MODULE.ATTRIBUTE`` below ``carmel.cli``, and its line in ``carmel --help``."""

    name: str
    target: str
    help: str


SECTIONS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    (
        "Virtual machines",
        (
            Entry("run", "run.run", "Make a VM from an image and start it."),
            Entry("start", "power.start", "Start VMs."),
            Entry("stop", "power.stop", "Ask the guest to shut down, or power it off with --force."),
            Entry("restart", "power.restart", "Stop VMs and start them again."),
            Entry("pause", "power.pause", "Freeze the vCPUs of VMs; memory stays."),
            Entry("resume", "power.resume", "Let paused or suspended VMs go on."),
            Entry("suspend", "power.suspend", "Save the memory of VMs to disk and stop them."),
            Entry("console", "console.console", "Attach to a VM's serial console."),
            Entry("ssh", "ssh.ssh", "Log in to a VM by ssh."),
            Entry("logs", "logs.logs", "Show what a VM printed on its serial console."),
        ),
    ),
    (
        "Resources",
        (
            Entry("get", "get.get", "List resources, or show some by name."),
            Entry("describe", "describe.describe", "Show a resource with its conditions and events."),
            Entry("apply", "apply.apply", "Bring resources to what manifests say (server-side apply)."),
            Entry("create", "create.create", "Create resources from manifests."),
            Entry("edit", "edit.edit", "Change a resource in your editor."),
            Entry("patch", "patch.patch", "Change some fields of a resource."),
            Entry("label", "label.label", "Set or remove labels."),
            Entry("annotate", "label.annotate", "Set or remove annotations."),
            Entry("delete", "delete.delete", "Delete resources."),
            Entry("wait", "wait.wait", "Wait until a resource is as you want it."),
            Entry("events", "events.events", "Show what happened."),
            Entry("explain", "explain.explain", "Show what the fields of a kind mean."),
            Entry("api-resources", "kinds.api_resources", "List the kinds that the server has."),
        ),
    ),
    (
        "Images and hosts",
        (
            Entry("image", "image.image", "Pull, build, import, list and delete images."),
            Entry("host", "host.host", "Draw the host with its VMs, show what it has left, rebalance it."),
            Entry("network", "network.network", "List networks, and keep an uplink that was taken over."),
            Entry(
                "smartnic",
                "smartnic.smartnic",
                "Show SmartNICs and who switches what, join one to its host, keep it in step.",
            ),
            Entry("top", "top.top", "Show CPU time outside guests, by host and SmartNIC side by side."),
            Entry("plan", "plan.plan", "Show where VMs would go, on a machine you have or have not."),
            Entry("board", "board.board", "List the machines that Carmel knows, with their limits and sources."),
            Entry("lab", "lab.lab", "Make emulated Arm hosts that run Carmel, with KVM inside."),
            Entry("doctor", "doctor.doctor", "Say what this machine can do, and how to get the rest."),
            Entry("kubeconfig", "kubeconfig.kubeconfig", "Print a configuration for kubectl."),
        ),
    ),
    (
        "Other",
        (
            Entry("completion", "completion.completion", "Print the completion script for your shell."),
            Entry("version", "version.version", "Print the versions of carmel and of the server."),
        ),
    ),
)
