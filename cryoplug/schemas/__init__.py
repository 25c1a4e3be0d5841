"""What the records of ``--json`` hold: a JSON Schema, for programs that read them and for the tests."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any

RECORDS_NAME = "records.schema.json"
"""Of the file beside this one: every type of record is one of its ``$defs``; those with a capital are parts of records."""
OTHER = "other"
"""What stands for the records of plugins."""


@functools.cache
def record_schema() -> dict[str, Any]:
    """Read the schema of one line that a command writes with ``--json``."""
    text = (importlib.resources.files(__name__) / RECORDS_NAME).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def record_types() -> tuple[str, ...]:
    """Give the types of records that cryoplug writes, without that of plugins."""
    named = (item["$ref"].rpartition("/")[2] for item in record_schema()["oneOf"])
    return tuple(name for name in named if name != OTHER)


def schema_of(type: str) -> dict[str, Any]:
    """Give the schema of one type of record, complete in itself; a type that is not known is a plugin's."""
    name = type if type in record_types() else OTHER
    return {"$ref": f"#/$defs/{name}", "$defs": record_schema()["$defs"]}
