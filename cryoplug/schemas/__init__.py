"""What the records of ``--json`` hold: a JSON Schema, for programs that read them and for the tests."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any

RECORDS_NAME = "records.schema.json"
"""Of the file beside this one: every type of record is one of its ``$defs``."""


@functools.cache
def record_schema() -> dict[str, Any]:
    """Read the schema of one line that a command writes with ``--json``."""
    text = (importlib.resources.files(__name__) / RECORDS_NAME).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
