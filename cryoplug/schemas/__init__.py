"""What the records of ``--json`` hold: a JSON Schema, for programs that read them and for the tests."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any

RECORDS_NAME = "records.schema.json"
"""Name of the schema file. Every type of record is one of its ``$defs``; names with a capital letter are parts of records."""
OTHER = "other"
"""Name in ``$defs`` of the schema for records of plugins."""


@functools.cache
def record_schema() -> dict[str, Any]:
    """Read the schema of one line that a command writes with ``--json``."""
    text = (importlib.resources.files(__name__) / RECORDS_NAME).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def record_types() -> tuple[str, ...]:
    """Give the types of records that cryoplug itself writes, without those of plugins."""
    named = (item["$ref"].rpartition("/")[2] for item in record_schema()["oneOf"])
    return tuple(name for name in named if name != OTHER)


def schema_of(type: str) -> dict[str, Any]:
    """Give the complete schema of one type of record; an unknown type gets the schema for plugins."""
    name = type if type in record_types() else OTHER
    return {"$ref": f"#/$defs/{name}", "$defs": record_schema()["$defs"]}
