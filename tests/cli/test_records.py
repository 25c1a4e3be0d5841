"""What ``--json`` writes is what cryoplug/schemas says: every type is documented, every record is one of them."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import cryoplug
from cryoplug.cli.description import ArgumentDescription, OptionDescription
from cryoplug.cli.main import run
from cryoplug.cli.output import echo_result
from cryoplug.core.pixel_size import PixelSize
from cryoplug.core.results import FileResult, Finding
from cryoplug.metrics.evaluation import Agreement, HalvesScore
from cryoplug.metrics.hallucination import Hallucination
from cryoplug.metrics.summary import Mean, Requirement
from cryoplug.metrics.truth import TruthScore
from cryoplug.metrics.verdict import Comparison, Verdict
from cryoplug.reports.evaluation import Summary
from cryoplug.schemas import record_schema, record_types, schema_of
from cryoplug.training.progress import Comparison as EpochComparison

DEFINITIONS = record_schema()["$defs"]
PARTS: dict[str, type] = {
    "Mean": Mean,
    "TruthScore": TruthScore,
    "HalvesScore": HalvesScore,
    "Hallucination": Hallucination,
    "TruthMeans": TruthScore,
    "HalvesMeans": HalvesScore,
    "HallucinationMeans": Hallucination,
    "Agreement": Agreement,
    "Requirement": Requirement,
    "Comparison": Comparison,
    "Verdict": Verdict,
    "Summary": Summary,
    "PixelSize": PixelSize,
    "EpochComparison": EpochComparison,
    "Finding": Finding,
    "Argument": ArgumentDescription,
    "Option": OptionDescription,
}
"""Parts of records, and what they are made from."""
SELF_EXPLAINING = {
    "type",
    "cryoplug",
    "python",
    "platform",
    "torch",
    "denoised",
    "identity",
    "affine",
    "gaussian",
    "wiener",
}
OPEN = {"inspection.summary"}
"""Objects that hold what a path happens to hold."""


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


def fields_of(schema: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give all fields of a schema, those of objects within it too, by their names with points between them."""
    for key, field in schema.get("properties", {}).items():
        yield f"{name}.{key}", field
        yield from fields_of(field, f"{name}.{key}")


def test_the_schema_is_valid_and_has_exactly_the_types_that_commands_write() -> None:
    jsonschema.Draft202012Validator.check_schema(record_schema())
    assert written_types() == set(record_types())
    assert {name for name in DEFINITIONS if name.islower()} == {*record_types(), "other"}
    assert set(DEFINITIONS["other"]["properties"]["type"]["not"]["enum"]) == written_types()


def test_every_field_is_explained_those_of_parts_too() -> None:
    silent = [name for name, definition in DEFINITIONS.items() if not definition["description"]]
    found = [item for name, definition in DEFINITIONS.items() for item in fields_of(definition, name)]
    silent += [
        name
        for name, field in found
        if name.rpartition(".")[2] not in SELF_EXPLAINING and not field.get("description", "").endswith((".", "?"))
    ]
    assert not silent
    assert len(found) > 300


def test_no_object_may_hold_what_is_not_explained_but_for_those_that_hold_anything() -> None:
    found = [item for name, definition in DEFINITIONS.items() for item in fields_of(definition, name)]
    found += list(DEFINITIONS.items())
    loose = {name for name, field in found if "object" in field.get("type", ()) and "additionalProperties" not in field}
    assert loose == OPEN | {"other"}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_has_the_fields_of_what_it_is_made_from(name: str) -> None:
    derived = {"deviation"} if name == "Agreement" else set()
    wanted = {item.name for item in dataclasses.fields(PARTS[name])} | derived
    assert set(DEFINITIONS[name]["properties"]) == wanted == set(DEFINITIONS[name].get("required", wanted))


def test_every_part_is_used() -> None:
    text = json.dumps(record_schema())
    assert [name for name in DEFINITIONS if f'"#/$defs/{name}"' not in text] == []


def test_a_record_that_fails_is_in_the_schema_and_names_the_totals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mrc").write_bytes(b"nothing")
    assert run(["denoise", str(tmp_path / "bad.mrc"), "-o", str(tmp_path / "out"), "--device", "cpu", "--json"]) == 4
    (record,) = map(json.loads, capsys.readouterr().out.splitlines())
    jsonschema.Draft202012Validator(record_schema()).validate(record)
    assert (record["status"], record["finished"], record["total"]) == ("failed", 1, 1)


def test_a_field_that_nobody_documented_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    echo_result({**vars(FileResult(Path("a"), "done")), "speed": 3}, as_json=True, type="file")
    with pytest.raises(jsonschema.ValidationError, match="speed"):
        jsonschema.Draft202012Validator(schema_of("file")).validate(json.loads(capsys.readouterr().out))


def test_a_figure_that_nobody_documented_is_found() -> None:
    record = {name: 1.0 for name in DEFINITIONS["TruthScore"]["properties"]}
    part = {"$ref": "#/$defs/TruthScore", "$defs": DEFINITIONS}
    jsonschema.Draft202012Validator(part).validate(record)
    with pytest.raises(jsonschema.ValidationError, match="sharpness"):
        jsonschema.Draft202012Validator(part).validate({**record, "sharpness": 1.0})
    with pytest.raises(jsonschema.ValidationError, match="ssim"):
        jsonschema.Draft202012Validator(part).validate({**record, "ssim": "good"})
