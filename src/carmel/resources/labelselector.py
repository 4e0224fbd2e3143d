"""LabelSelector, as in Kubernetes (meta/v1): ``matchLabels`` and ``matchExpressions``, all of which must hold."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from carmel.resources.base import Model


class LabelOperator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class LabelRequirement(Model):
    """One condition on a label."""

    key: str = Field(min_length=1, max_length=317)
    operator: LabelOperator
    values: list[str] | None = Field(default=None, max_length=256)

    @model_validator(mode="after")
    def _values_where_needed(self) -> Self:
        needs = self.operator in {LabelOperator.IN, LabelOperator.NOT_IN}
        if needs and not self.values:
            raise ValueError(f"operator {self.operator.value} needs values")
        if not needs and self.values:
            raise ValueError(f"operator {self.operator.value} takes no values")
        return self

    def matches(self, labels: Mapping[str, str]) -> bool:
        """An absent label is not in any values, as in Kubernetes."""
        match self.operator:
            case LabelOperator.IN:
                return labels.get(self.key) in (self.values or ())
            case LabelOperator.NOT_IN:
                return labels.get(self.key) not in (self.values or ())
            case LabelOperator.EXISTS:
                return self.key in labels
            case LabelOperator.DOES_NOT_EXIST:
                return self.key not in labels


class LabelSelector(Model):
    """An empty selector matches everything."""

    match_labels: dict[str, str] | None = Field(default=None, max_length=64)
    match_expressions: list[LabelRequirement] | None = Field(default=None, max_length=64)

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in (self.match_labels or {}).items()) and all(
            one.matches(labels) for one in self.match_expressions or ()
        )
