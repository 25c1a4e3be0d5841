"""How a checkpoint is applied is said in one record: checked once, and what records and labels say of it."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import click
import pytest

from cryoplug.cli.denoise import denoise as denoise_command
from cryoplug.cli.evaluate import evaluate as evaluate_command
from cryoplug.errors import UsageError
from cryoplug.inference.denoiser import Denoiser
from cryoplug.inference.settings import WITHOUT_EFFECT, ApplySettings, unsaid_identity
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import model_spec
from cryoplug.workflows.denoise import DenoiseRequest
from cryoplug.workflows.denoise.request import unsaid
from cryoplug.workflows.evaluate import EvaluateRequest

NAMES = [item.name for item in dataclasses.fields(ApplySettings)]


def checkpoint(**details: object) -> Checkpoint:
    weights = {key: tensor.numpy() for key, tensor in model_spec("cryo_cnn").build(seed=1).state_dict().items()}
    return Checkpoint("cryo_cnn", weights, normalize="zscore", details=dict(details))


def requests(**fields: object) -> list[ApplySettings]:
    return [
        DenoiseRequest(("m.mrc",), Path("run"), Path("out"), **fields),  # type: ignore[arg-type]
        EvaluateRequest(Path("out"), ("m.mrc",), Path("run"), **fields),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("command", [denoise_command, evaluate_command])
def test_every_field_is_an_option_of_both_commands_with_the_default_of_python(command: click.Command) -> None:
    # The names of the help option, as the group gives them: click keeps what it sees first.
    names = ["-h", "--help"]
    context = command.make_context("x", ["m.mrc", "--checkpoint", "run", "-o", "out"], help_option_names=names)
    assert set(NAMES) <= set(context.params)
    given = {name: context.params[name] for name in NAMES}
    assert given == {name: getattr(ApplySettings(), name) for name in NAMES}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"normalize": "log"}, "--normalize 'log' (allowed: "),
        ({"angpix": -1.0}, "--angpix -1.0 (allowed: "),
        ({"angpix": float("nan")}, "--angpix nan (allowed: "),
        ({"strength": 1.5}, "--strength 1.5 (allowed: "),
        ({"merge_highres": 0.0}, "--merge-highres 0.0 (allowed: "),
        ({"precision": "float8"}, "--precision 'float8' (allowed: "),
        ({"tta": "yes"}, "--tta 'yes' (allowed: "),
        ({"tile": -1}, "--tile -1 (allowed: "),
        ({"threads": -2}, "--threads -2 (allowed: "),
        ({"max_memory_bytes": 0}, "--max-memory 0 (allowed: "),
    ],
)
def test_the_same_mistake_gets_the_same_sentence_everywhere(wrong: dict[str, object], said: str) -> None:
    sentences = set()
    for make in (
        lambda: ApplySettings(**wrong),  # type: ignore[arg-type]
        lambda: Denoiser(checkpoint(), **wrong),
        lambda: requests(**wrong)[0],
        lambda: EvaluateRequest(Path("out"), ("m.mrc",), Path("run"), **wrong),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError) as error:
            make()
        sentences.add(str(error.value))
    assert len(sentences) == 1 and sentences.pop().startswith(said)


def test_a_request_and_its_settings_say_the_same() -> None:
    for request in requests(angpix=3.0, strength=0.5, device="cpu", tta="on", threads=2):
        assert request.settings == ApplySettings(angpix=3.0, strength=0.5, device="cpu", tta="on", threads=2)
    assert DenoiseRequest(("m",), Path("c"), Path("o"), gpu=(3,)).settings.device == "cuda:3"


def test_python_may_say_true_and_false_for_on_and_off() -> None:
    assert [ApplySettings(tta=value).tta for value in (True, False)] == ["on", "off"]


def test_the_identity_holds_every_field_that_changes_pixels_and_no_other() -> None:
    found = ApplySettings(tile=64, threads=3, device="cpu").identity(checkpoint())
    assert set(found) == {"checkpoint_sha256", *NAMES} - WITHOUT_EFFECT
    assert found == ApplySettings().identity(checkpoint())


def test_what_the_checkpoint_decides_is_in_the_identity() -> None:
    own = checkpoint(angpix=3.1)
    assert {"normalize": "zscore", "angpix": "3.1"}.items() <= ApplySettings().identity(own).items()
    assert ApplySettings(angpix=0.0).identity(own)["angpix"] == "none"
    assert ApplySettings(angpix=3.1, normalize="zscore").identity(own) == ApplySettings().identity(own)
    assert ApplySettings().identity(checkpoint())["angpix"] == "none"


def test_a_record_of_before_a_choice_stands_for_its_default() -> None:
    plain = DenoiseRequest(("m.mrc",), Path("run"), Path("out"))
    # Written by 0.1.0 before --angpix, --strength, --merge-highres, --halves, --precision and --tta.
    record = {"checkpoint_sha256": checkpoint().sha256, "normalize": "zscore", "dtype": "float32"}
    assert {**unsaid(), **record} == plain.identity(checkpoint())
    assert set(unsaid_identity()) == set(NAMES) - WITHOUT_EFFECT


def test_the_label_says_what_was_done_in_its_80_bytes() -> None:
    own = checkpoint(angpix=3.1)
    said = ApplySettings().label(own, precision="float16", tta=True, dtype="float16")
    assert f"cryo_cnn sha256:{own.sha256[:9]} 3.1A/px float16 computed in float16 tta" in said and len(said) == 80
    plain = ApplySettings().label(own, precision="float32", tta=False, halves=True)
    assert plain.endswith(f" cryo_cnn sha256:{own.sha256[:12]} 3.1A/px halves")
    assert ApplySettings(angpix=0.0).label(own, precision="float32", tta=False).endswith(own.sha256[:12])


def test_the_python_api_takes_the_fields_by_name() -> None:
    denoiser = Denoiser(checkpoint(angpix=3.1), ApplySettings(device="cpu", threads=4), threads=1)
    assert denoiser.threads == 1 and denoiser.regrid.angpix == 3.1 and denoiser.settings.normalize == "zscore"
    with pytest.raises(TypeError, match="pixelsize"):
        Denoiser(checkpoint(), device="cpu", pixelsize=1.0)
    assert "settings" in inspect.signature(Denoiser).parameters
