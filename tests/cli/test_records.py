"""What ``--json`` writes is what cryoplug/schemas says: every type is documented, every record is one of them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import jsonschema
import pytest

import cryoplug
from cryoplug.cli.main import run
from cryoplug.cli.output import echo_result
from cryoplug.core.results import FileResult
from cryoplug.schemas import record_schema

DEFINITIONS = record_schema()["$defs"]


def written_types() -> set[str]:
    """Find the types that the commands write, in their source."""
    found = {"file"}
    for path in sorted((Path(cryoplug.__file__).parent / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "echo_result":
                found |= {
                    item.value.value for item in node.keywords if item.arg == "type" and hasattr(item.value, "value")
                }
    return found


def test_the_schema_is_valid_and_has_exactly_the_types_that_commands_write() -> None:
    jsonschema.Draft202012Validator.check_schema(record_schema())
    assert written_types() == set(DEFINITIONS) - {"other"}
    assert set(DEFINITIONS["other"]["properties"]["type"]["not"]["enum"]) == written_types()


def test_every_field_is_explained() -> None:
    plain = {"type", "cryoplug", "python", "platform", "torch"}
    for name, definition in DEFINITIONS.items():
        assert definition["description"]
        silent = [
            key for key, field in definition["properties"].items() if key not in plain and "description" not in field
        ]
        assert not silent, f"{name}: {silent}"


def test_a_record_that_fails_is_in_the_schema_and_names_the_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mrc").write_bytes(b"nothing")
    assert run(["denoise", str(tmp_path / "bad.mrc"), "-o", str(tmp_path / "out"), "--device", "cpu", "--json"]) == 4
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    jsonschema.validate(record, record_schema())
    assert (record["status"], record["finished"], record["total"]) == ("failed", 1, 1)


def test_a_field_that_nobody_documented_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    echo_result({**vars(FileResult(Path("a"), "done")), "speed": 3}, as_json=True, type="file")
    with pytest.raises(jsonschema.ValidationError, match="speed"):
        jsonschema.validate(json.loads(capsys.readouterr().out), DEFINITIONS["file"])
