from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cryoplug.errors import DeviceError, FormatError, PixelError, UsageError
from cryoplug.inference.denoiser import Denoiser
from cryoplug.machine.devices import Interrupted, device_name, resolve_device
from cryoplug.models import registry
from cryoplug.models.checkpoint import Checkpoint
from cryoplug.models.registry import ModelSpec, model_spec

TOLERANCE_OF_RANGE = 1e-5


def checkpoint_of(model: str, **changes: object) -> Checkpoint:
    weights = {name: tensor.numpy() for name, tensor in model_spec(model).build(seed=3).state_dict().items()}
    return Checkpoint(model, weights, **{"normalize": "none", **changes})


def noise(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(5).random(shape, dtype=np.float32)


def whole_image(module: nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module(torch.from_numpy(image)[None, None])[0, 0].numpy()


def assert_equal_to_rounding(found: np.ndarray, wanted: np.ndarray, tolerance: float = TOLERANCE_OF_RANGE) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance * max(np.ptp(wanted), 1e-3)


def plain_founding_network(folder: Path) -> nn.Module:
    files = sorted(folder.glob("conv*_weights.bin"))
    layers: list[nn.Module] = []
    for file in files:
        bias = np.fromfile(str(file).replace("weights", "bias"), "<f4")
        weights = np.fromfile(file, "<f4").reshape(len(bias), -1, 3, 3)
        layer = nn.Conv2d(weights.shape[1], weights.shape[0], 3, padding=1)
        layer.weight.data.copy_(torch.from_numpy(weights))
        layer.bias.data.copy_(torch.from_numpy(bias))
        layers += [layer, nn.ReLU()]
    stack = nn.Sequential(*layers[:-1])
    if len(files) == 3:
        return stack

    class Residual(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image - stack(image)

    return Residual()


@pytest.mark.parametrize("name", ["cryo_cnn", "deep12", "n2n_real"])
@pytest.mark.parametrize(("shape", "tile"), [((157, 211), 0), ((157, 211), 37), ((9, 300), 0), ((131, 5), 64)])
def test_founding_weights_in_tiles_equal_the_plain_network_on_the_whole_image(seed_checkpoints, name, shape, tile):
    (folder,) = (seed_checkpoints / name).glob("epoch_*")
    denoiser = Denoiser.from_checkpoint(folder, normalize="none", device="cpu", tile=tile, threads=2)
    image = noise(shape)
    assert_equal_to_rounding(denoiser.denoise(image), whole_image(plain_founding_network(folder), image))


@pytest.mark.parametrize("model", ["cryo_cnn", "residual_cnn"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(2, 1), (1, 257), (129, 64), (200, 130)])
def test_tiles_and_threads_do_not_change_the_result(model, threads, shape):
    checkpoint = checkpoint_of(model)
    wanted = whole_image(checkpoint.spec.build(seed=3), noise(shape))
    for tile in (0, 64, 1):
        denoiser = Denoiser(checkpoint, device="cpu", tile=tile if max(shape) < 258 else 0, threads=threads)
        if tile != 1 or shape[0] * shape[1] < 300:
            assert_equal_to_rounding(denoiser.denoise(noise(shape)), wanted)


class Pooling(nn.Module):
    """Pools by 4: wrong at every seam unless tiles start on multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(1, 4, 3, padding=1)
        self.after = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        small = nn.functional.avg_pool2d(torch.relu(self.before(image)), 4)
        return self.after(nn.functional.interpolate(small, scale_factor=4.0, mode="nearest"))


def pooling_checkpoint(monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    def build(*, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Pooling()

    spec = ModelSpec("pooling", "for this test", build, receptive_field_px=6, size_multiple=4)
    monkeypatch.setattr(registry, "BUILT_IN", (*registry.BUILT_IN, spec))
    return checkpoint_of("pooling")


@pytest.mark.parametrize("tile", [0, 10, 33, 64])
def test_a_network_that_pools_leaves_no_seams(monkeypatch, tile):
    checkpoint = pooling_checkpoint(monkeypatch)
    image = noise((120, 148))
    denoiser = Denoiser(checkpoint, device="cpu", tile=tile, threads=2)
    assert_equal_to_rounding(denoiser.denoise(image), whole_image(checkpoint.spec.build(seed=3), image))


def test_a_network_that_pools_takes_sizes_off_its_grid_by_its_mirror_image(monkeypatch):
    checkpoint = pooling_checkpoint(monkeypatch)
    image = noise((61, 90))
    wanted = whole_image(checkpoint.spec.build(seed=3), np.pad(image, ((0, 3), (0, 2)), mode="reflect"))[:61, :90]
    assert_equal_to_rounding(Denoiser(checkpoint, device="cpu", tile=24, threads=2).denoise(image), wanted)


@pytest.mark.parametrize("kind", ["percentile", "zscore"])
def test_the_grey_scale_of_the_output_follows_that_of_the_input(kind):
    denoiser = Denoiser(checkpoint_of("cryo_cnn", normalize=kind), device="cpu", threads=1)
    image = noise((70, 80)) + 0.5
    assert denoiser.denoise(image * 128) == pytest.approx(denoiser.denoise(image) * 128, rel=1e-4, abs=1e-2)


def test_the_checkpoints_own_normalization_is_used_unless_another_is_named():
    checkpoint = checkpoint_of("cryo_cnn", normalize="zscore")
    assert Denoiser(checkpoint, device="cpu").normalize == "zscore"
    assert Denoiser(checkpoint, device="cpu", normalize="none").normalize == "none"


def test_integers_and_big_endian_pixels_are_taken():
    denoiser = Denoiser(checkpoint_of("cryo_cnn"), device="cpu", threads=1)
    image = np.random.default_rng(2).integers(0, 99, (40, 50))
    wanted = denoiser.denoise(image.astype(np.float32))
    assert (denoiser.denoise(image.astype(">u2")) == wanted).all()


def test_nan_is_refused_with_its_place():
    image = noise((30, 30))
    image[4, 7] = np.nan
    with pytest.raises(PixelError, match=r"\(4, 7\)"):
        Denoiser(checkpoint_of("cryo_cnn"), device="cpu").denoise(image)


@pytest.mark.parametrize("shape", [(4096, 4096), (16384, 16384), (100, 20000), (20000, 100)])
def test_a_band_stays_small_whatever_the_micrograph(shape):
    bands = Denoiser(checkpoint_of("residual_cnn"), device="cpu", threads=1).bands(shape)
    assert max(np.prod(band.read.shape) for band in bands) <= 2 << 20
    assert sum(band.paste.shape[0] for band in bands) == shape[0]


def test_the_callers_own_number_of_threads_is_left_alone():
    before = torch.get_num_threads()
    Denoiser(checkpoint_of("cryo_cnn"), device="cpu", threads=3).denoise(noise((50, 50)))
    assert torch.get_num_threads() == before


def test_each_worker_computes_on_one_core():
    seen = []

    class Spy(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append((threading.current_thread().name, torch.get_num_threads()))
            return image

    denoiser = Denoiser(checkpoint_of("cryo_cnn"), device="cpu", threads=2)
    denoiser.network.module = Spy()
    denoiser.denoise(noise((300, 600)))
    assert {number for _, number in seen} == {1}
    assert all(name.startswith("cryoplug-compute") for name, _ in seen)


def test_tiles_are_halved_when_memory_runs_out_and_the_result_stays():
    checkpoint = checkpoint_of("residual_cnn")
    notes: list[str] = []
    denoiser = Denoiser(checkpoint, device="cpu", threads=1, note=notes.append)
    real = denoiser.network.module

    class Tight(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.shape[-1] * image.shape[-2] > 130 * 130:
                raise torch.OutOfMemoryError("tried to allocate")
            return real(image)

    denoiser.network.module = Tight()
    image = noise((300, 310))
    for _ in range(2):
        assert_equal_to_rounding(denoiser.denoise(image), whole_image(real, image))
    assert notes == [
        "cpu: memory ran out with tiles of 128x256 px; going on with 64x128 px, which gives the same result"
    ], "said once"


def test_memory_that_never_suffices_is_a_device_error():
    class Full(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")

    denoiser = Denoiser(checkpoint_of("cryo_cnn"), device="cpu", threads=1)
    denoiser.network.module = Full()
    with pytest.raises(DeviceError, match="not enough memory"):
        denoiser.denoise(noise((300, 300)))


def test_libraries_below_torch_may_say_it_in_their_own_way():
    denoiser = Denoiser(checkpoint_of("cryo_cnn"), device="cpu", threads=1)
    real = denoiser.network.module
    texts = ["CUDA error: out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"]

    class Tight(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if texts:
                raise RuntimeError(texts.pop())
            return real(image)

    denoiser.network.module = Tight()
    image = noise((300, 310))
    assert_equal_to_rounding(denoiser.denoise(image), whole_image(real, image))


def test_a_gpu_that_fails_is_a_device_error_and_a_bug_is_a_bug():
    denoiser = Denoiser(checkpoint_of("cryo_cnn"), device="cpu", threads=1)
    for text, kind in (("CUDA error: an illegal memory access", DeviceError), ("sizes do not match", RuntimeError)):

        class Broken(nn.Module):
            def forward(self, image: torch.Tensor, text: str = text) -> torch.Tensor:
                raise RuntimeError(text)

        denoiser.network.module = Broken()
        with pytest.raises(kind, match=text) as caught:
            denoiser.denoise(noise((90, 90)))
        assert isinstance(caught.value, DeviceError) == (kind is DeviceError)


def test_a_stop_is_heeded_between_two_tiles(monkeypatch):
    denoiser = Denoiser(checkpoint_of("cryo_cnn"), device="cpu", threads=1, tile=64)
    asked, computed = [], []
    network = denoiser._band_network._tile_network
    monkeypatch.setattr(denoiser._band_network, "_tile_network", lambda pixels: computed.append(1) or network(pixels))
    (band,) = denoiser.bands((64, 640))
    with pytest.raises(Interrupted):
        denoiser.forward(noise((64, 640)), band, lambda: asked.append(1) or len(asked) >= 3)
    assert len(computed) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("model", ["cryo_cnn", "residual_cnn", "unet"])
@pytest.mark.parametrize("tile", [0, 100])
@pytest.mark.parametrize("precision", ["auto", "float32", "float16", "bf16"])
@pytest.mark.parametrize("kernels", ["plain", "auto"])
def test_a_gpu_gives_what_the_cpu_gives(monkeypatch, model, tile, precision, kernels):
    monkeypatch.setenv("CRYOPLUG_KERNELS", kernels)
    checkpoint = checkpoint_of(model, normalize="zscore")
    if model == "unet":
        checkpoint.weights["output.weight"][:] = np.random.default_rng(1).normal(0, 0.03, (1, 32, 3, 3))
    image = noise((600, 701))
    denoiser = Denoiser(checkpoint, device="cuda", tile=tile, precision=precision)
    # Hidden values keep 11 bits in float16 and 8 in bfloat16; see docs/decisions/0014-whole-micrographs-on-gpus.md.
    tolerance = {"float32": TOLERANCE_OF_RANGE, "float16": 1e-3, "bf16": 8e-3}[denoiser.network.precision]
    wanted = Denoiser(checkpoint, device="cpu").denoise(image)
    assert_equal_to_rounding(denoiser.denoise(image), wanted, tolerance)
    pixels = torch.from_numpy(image - image.mean()).cuda()
    whole = denoiser.forward_on_device(pixels).cpu().numpy()
    wanted = Denoiser(checkpoint, device="cpu").forward_on_device(pixels.cpu()).numpy()
    assert_equal_to_rounding(whole, wanted, tolerance)


def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(DeviceError, match="cuda:99"):
        resolve_device("cuda:99")


@pytest.mark.parametrize(
    ("device", "gpu", "wanted"), [("auto", 1, "cuda:1"), ("cuda", 2, "cuda:2"), ("cuda:0", 0, "cuda:0")]
)
def test_a_number_and_a_name_may_agree(device, gpu, wanted):
    assert device_name(device, gpu) == wanted
    assert device_name(device, None) == device


@pytest.mark.parametrize(("device", "gpu"), [("cpu", 0), ("cuda:1", 0), ("cuda:0", 1)])
def test_a_number_and_a_name_that_contradict_each_other_are_refused(device, gpu):
    with pytest.raises(UsageError, match=f"--gpu {gpu} and --device {device} name two devices"):
        device_name(device, gpu)


def test_a_device_that_is_not_there_is_told_with_what_the_environment_shows(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"cuda:0: no GPU .* is there \(CUDA_VISIBLE_DEVICES=5\)"):
        resolve_device("cuda:0")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "", "cuda:-1"])
def test_a_device_that_means_nothing_is_refused(name):
    with pytest.raises(UsageError, match="allowed: auto, cpu, cuda"):
        resolve_device(name)


def test_all_wrong_arguments_are_named_at_once():
    with pytest.raises(UsageError, match=r"normalize 'log'.*tile -1.*threads -2"):
        Denoiser(checkpoint_of("cryo_cnn"), normalize="log", tile=-1, threads=-2)


def test_weights_of_another_network_are_refused():
    wrong = Checkpoint("cryo_cnn", checkpoint_of("residual_cnn").weights)
    with pytest.raises(FormatError, match="do not fit cryo_cnn"):
        Denoiser(wrong, device="cpu")


@pytest.mark.parametrize("name", ["cryo_cnn/epoch_0001", "deep12/epoch_0005", "n2n_real/epoch_0009"])
def test_founding_weights_on_a_real_micrograph_give_what_plain_layers_give(
    name: str, seed_checkpoints: Path, shared_data: Path
) -> None:
    import mrcfile

    raw = mrcfile.read(next(shared_data.glob("micrographs/24dec03a*.mrc")))
    scale = np.percentile(raw[raw > 0], 95)
    image = torch.from_numpy(np.clip(raw / scale, 0, 1))[None, None]
    layers = sorted((seed_checkpoints / name).glob("conv*_weights.bin"))
    plain = image
    for path in layers:
        bias = np.fromfile(path.with_name(path.name.replace("weights", "bias")), "<f4")
        weight = np.fromfile(path, "<f4").reshape(len(bias), -1, 3, 3)
        plain = torch.nn.functional.conv2d(plain, torch.from_numpy(weight), torch.from_numpy(bias), padding=1)
        plain = plain if path is layers[-1] else plain.relu()
    expected = (plain if len(layers) == 3 else image - plain)[0, 0].numpy() * scale
    found = Denoiser.from_checkpoint(seed_checkpoints / name, device="cpu").denoise(raw)
    assert np.abs(found - expected).max() <= 1e-5 * np.ptp(expected)
