"""The forms say what cryoplug says, and a filled form means what it says there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from scipion_here import Denoise, Evaluate, Plugin, Session, Train

from cryoplug_scipion import described
from cryoplug_scipion.form import arguments, choices

KINDS = [Denoise, Train, Evaluate]
SHOWN = [(kind, command) for kind in KINDS for command in kind._shown]


def test_packaged_descriptions_are_what_cryoplug_says() -> None:
    assert {path.stem for path in described.PACKAGED.iterdir()} == {command for _, command in SHOWN}
    for path in described.PACKAGED.iterdir():
        assert path.read_text() == Plugin.program().answer("describe", path.stem), (
            "the options of cryoplug have changed"
        )


@pytest.mark.parametrize(("kind", "command"), SHOWN, ids=lambda item: getattr(item, "__name__", item))
def test_forms_repeat_help_default_choices_and_range_of_the_command(kind: Any, command: str, session: Session) -> None:
    protocol = session.new(kind, {})
    options = described.options(command, Plugin.program())
    for name in kind._shown[command]:
        option = options[name]
        param = protocol.getParam(option.attribute)
        assert option.help in param.help.get()
        value = protocol.getAttributeValue(option.attribute)
        if option.kind == "choice":
            assert tuple(param.choices) == choices(option)
            assert choices(option)[value] == (option.default or "default")
        else:
            assert value == option.default or (value in ("", None) and option.default is None)


@pytest.mark.parametrize(("kind", "command"), SHOWN, ids=lambda item: getattr(item, "__name__", item))
def test_an_untouched_form_gives_no_option(kind: Any, command: str, session: Session) -> None:
    assert session.new(kind, {}).form_words(command) == []


def test_a_filled_form_gives_its_options(session: Session) -> None:
    protocol = session.new(
        Denoise, {}, target="particles", lowpass=20.0, previews=False, float16=True, max_memory="2GB"
    )
    assert protocol.form_words("denoise") == [
        *("--target", "particles", "--lowpass", "20.0", "--float16", "--no-previews", "--max-memory", "2GB"),
    ]
    protocol = session.new(Train, {}, model_option="depth=2 width=8", require_better_than="gaussian", minutes=0.5)
    assert protocol.form_words("train") == [
        *("--model-option", "depth=2", "--model-option", "width=8"),
        *("--minutes", "0.5", "--require-better-than", "gaussian"),
    ]


def test_a_menu_takes_words_and_names_what_it_allows(session: Session) -> None:
    assert session.new(Denoise, {}, tta="on").form_words("denoise") == ["--tta", "on"]
    with pytest.raises(ValueError, match=r"target 'ice' \(allowed: default, image, particles\)"):
        session.new(Denoise, {}, target="ice")


def test_a_number_out_of_range_does_not_pass_the_form(session: Session) -> None:
    errors = session.new(Train, {}, max_batches=-1).validate()
    assert "*Max batches* is out of range (allowed: from 0)" in errors


def test_machine_words_follow_what_scipion_asks(session: Session) -> None:
    words = {gpu: session.new(Denoise, {}, gpuList=gpu, moreOptions="").machine_words("denoise") for gpu in ("", "0,1")}
    assert words[""] == ["--threads", "1", "--device", "cpu"]
    protocol = session.new(Denoise, {}, gpuList="0,1", moreOptions="--tile 'a b'")
    protocol.useGpu.set(True)
    assert protocol.machine_words("denoise") == ["--threads", "1", "--gpu", "0,1", "--tile", "a b"]
    protocol = session.new(Train, {}, gpuList="2")
    protocol.useGpu.set(True)
    assert protocol.machine_words("train") == ["--threads", "1", "--device", "cuda:2"]


def test_an_option_that_the_user_left_is_never_on_the_command_line() -> None:
    options = described.options("train", Plugin.program()).values()
    left = SimpleNamespace(getAttributeValue=lambda name: None)
    assert arguments(left, options) == []
