"""Task: one long operation, its progress and how it ended. It expires some time after its end."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from carmel.resources.base import Model, Resource, Status, StatusError, Time
from carmel.resources.kinds import Column, Kind


class TaskPhase(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class TaskTarget(Model):
    """What is worked on, in the task's namespace."""

    kind: str
    name: str
    uid: str | None = None


class TaskSpec(Model):
    """What is done. A user may ask for its end by ``cancelRequested``."""

    target: TaskTarget
    verb: str = Field(min_length=1, max_length=63, description="Pull, Build, Import, ...")
    cancel_requested: bool = False
    ttl_seconds_after_finished: int = Field(default=3600, ge=0, le=30 * 86400)


class TaskStatus(Status):
    """How far it is."""

    phase: TaskPhase | None = None
    progress_percent: int | None = Field(default=None, ge=0, le=100)
    message: str | None = None
    error: StatusError | None = None
    started_at: Time | None = None
    finished_at: Time | None = None


class Task(Resource):
    """A task."""

    spec: TaskSpec
    status: TaskStatus = Field(default_factory=TaskStatus)


TASK = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="Task",
    plural="tasks",
    categories=("carmel",),
    model=Task,
    columns=(
        Column("Verb", ".spec.verb"),
        Column("Target", ".spec.target.name"),
        Column("Phase", ".status.phase"),
        Column("Progress", ".status.progressPercent", "integer"),
        Column("Message", ".status.message", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
