"""The configuration of a server-side apply that is no JSON."""

from __future__ import annotations

from typing import Any

import orjson
import yaml

from carmel.errors import BadRequest


class _NoAliases(yaml.SafeLoader):
    """Aliases can make a small text an immense value, and no manifest needs them."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken")
        return super().compose_node(parent, index)


def read_yaml(document: bytes) -> Any:
    """Raises ``BadRequest``."""
    try:
        value = yaml.load(document, _NoAliases)  # noqa: S506 - a safe loader, with less
        # What YAML knows and JSON does not (dates) becomes what JSON has for it.
        return orjson.loads(orjson.dumps(value))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"the configuration to apply is neither JSON nor YAML: {str(error)[:300]}") from None
