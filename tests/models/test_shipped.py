"""The general model of the package: what reaches it, what it is stored as, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryoplug.errors import UsageError
from cryoplug.models import shipped
from cryoplug.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, validate_checkpoint
from cryoplug.models.one_output import image_alone
from cryoplug.models.registry import CRYO_CNN, UNET


def test_its_name_reaches_it_and_it_knows_that_it_is_the_general_one(general_model: Path) -> None:
    for name in ("general", Path("general")):
        found = load_checkpoint(name)
        assert found.is_general and found.path == general_model
        assert (found.normalize, found.angpix, found.angpix_range) == ("robust", 2.6, (2.0, 5.0))
        assert found.spec.outputs == ("image", "particles")
        assert validate_checkpoint(name) == []
    assert load_checkpoint(general_model).is_general, "its own path is as good as its name"


def test_a_folder_of_that_name_is_reached_by_a_longer_path_and_it_is_said(
    general_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped.namesake_note() == ""
    weights = {name: np.ones(shape, np.float32) for name, shape in CRYO_CNN.weight_shapes().items()}
    save_checkpoint(Path("general") / "epoch_0001", Checkpoint("cryo_cnn", weights), 0.5)
    assert load_checkpoint("general").model_id == "unet"
    for name in ("./general", tmp_path / "general", "general/epoch_0001"):
        found = load_checkpoint(name)
        assert found.model_id == "cryo_cnn" and not found.is_general
    assert "./general" in shipped.namesake_note()


def test_a_build_without_it_says_what_to_give_instead(no_general_model: None) -> None:
    with pytest.raises(UsageError, match="this build of cryoplug has no general model; give --checkpoint"):
        load_checkpoint("general")
    assert ["no general model" in item.message for item in validate_checkpoint("general")] == [True]
    assert not shipped.is_there()


def test_training_begins_with_the_small_one(general_model: Path, tmp_path: Path) -> None:
    found = load_checkpoint(shipped.start_of("general"))
    assert found.path == shipped.start_of(Path("general")) == general_model / "start"
    assert found.spec.outputs == ("image",) and not found.is_general
    assert validate_checkpoint(general_model / "start") == []
    for path in (general_model, tmp_path):
        assert shipped.start_of(path) == path, "a path means what lies there"
    (general_model / "start" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="no general model; give"):
        shipped.start_of("general")


def test_the_card_says_its_facts_in_the_first_table(general_model: Path) -> None:
    assert shipped.card_facts() == {"data": "none", "licence": "BSD-3-Clause"}
    (general_model / "MODEL_CARD.md").write_text("no table here")
    assert shipped.card_facts() == {}
    (general_model / "MODEL_CARD.md").unlink()
    assert shipped.card_facts() == {}


@pytest.mark.parametrize("stem", [1, 2])
def test_the_image_alone_is_the_image_of_both(stem: int) -> None:
    import torch

    config = {"depth": 1, "width": 4, "stem": stem, "skip": "none", "outputs": 2, "clip": 1.0}
    rng = np.random.default_rng(0)
    shapes = UNET.configured(config).weight_shapes()
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    both = Checkpoint("unet", weights, config, "robust", 2.6, {"angpix": 2.6})
    one = image_alone(both)
    assert one.spec.outputs == ("image",) and one.config["clip"] == 1.0 and one.details == both.details
    assert image_alone(one) is one
    images = torch.from_numpy(3 * rng.standard_normal((1, 1, 24, 30)))
    results = []
    for checkpoint in (both, one):
        network = checkpoint.spec.build(config=checkpoint.config).double()  # sums of another order differ in float32
        network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in checkpoint.weights.items()})
        results.append(network(images)[:, :1])
    torch.testing.assert_close(results[0], results[1])


def test_the_weights_of_this_tree_are_small_and_sound_if_they_are_there() -> None:
    if not shipped.is_there():
        pytest.skip("no weights in this tree")
    size = sum(item.stat().st_size for item in shipped.FOLDER.iterdir())
    assert size < 20 << 20
    assert validate_checkpoint("general") == []
    found = load_checkpoint("general")
    assert found.spec.outputs == ("image", "particles") and found.angpix is not None
    assert {"data", "licence", "how good", "weak at"} <= {name.lower() for name in shipped.card_facts()}
