"""What lies in the ice: particles of several shapes and the ice itself, as projected electrostatic potential.

A particle is a cloud of equal Gaussian blobs that fills a solid shape, about as coarse as a residue or a small domain.
The projection of a Gaussian is a Gaussian again, so any orientation takes only the rotated centres.
What is left out: the positions along the beam (one defocus for all), flexibility, radiation damage, multiple
scattering.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PROTEIN_CONTRAST_VOLT = 2.5
"""Mean inner potential of protein (about 7 V) less that of vitreous ice (about 4.5 V), Vulovic et al. 2013, rounded."""

BLOB_SPACING_ANGSTROM = 9.0
"""Distance of the lattice that blobs are drawn around."""

BLOB_WIDTH_ANGSTROM = 4.5
"""Standard deviation of a blob: half the spacing, so that the inside of a particle is nearly even."""

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ParticleModel:
    """One kind of particle, centred, in its own frame."""

    name: str
    """``sphere``, ``shell``, ``rod``, ``ring`` or ``cluster``; the name of a map or a structure; of a random molecule
    its kind, symmetry and mass."""
    points_angstrom: npt.NDArray[np.floating]
    """Centres of the blobs, ``(n, 3)`` in the order z, y, x."""
    blob_volt_angstrom3: float | npt.NDArray[np.floating]
    """Integral of the potential of one blob over space: of each alike, or ``(n,)``."""
    blob_width_angstrom: float = BLOB_WIDTH_ANGSTROM
    """Standard deviation of a blob."""
    kind: str = "shape"
    """What sort of molecule it is: ``shape``, ``map``, ``model``, or a kind of `molecules.MoleculeDistribution`."""
    mass_kda: float | None = None
    """Molecular mass where it is known, kilodalton."""

    @property
    def radius_angstrom(self) -> float:
        """Radius of the ball around the origin that holds every blob to three standard deviations."""
        return float(np.sqrt((self.points_angstrom**2).sum(axis=1).max()) + 3 * self.blob_width_angstrom)


def particle_models(rng: np.random.Generator) -> tuple[ParticleModel, ...]:
    """Make one particle of each shape.

    Parameters
    ----------
    rng
        Draws the jitter of the blobs and the lobes of the cluster.

    Returns
    -------
    tuple of ParticleModel
        Solid sphere (diameter 130 angstrom), hollow shell (230), rod (200 x 70), ring (170), irregular cluster (about
        150).
    """
    lobes = _cluster_lobes(rng)
    shapes: tuple[tuple[str, float, Callable[[FloatArray], npt.NDArray[np.bool_]]], ...] = (
        ("sphere", 65.0, lambda p: _norm(p) <= 65),
        ("shell", 115.0, lambda p: (_norm(p) <= 115) & (_norm(p) >= 90)),
        ("rod", 100.0, lambda p: (_norm(p[:, 1:]) <= 35) & (np.abs(p[:, 0]) <= 100)),
        ("ring", 85.0, lambda p: np.hypot(_norm(p[:, 1:]) - 58, p[:, 0]) <= 27),
        ("cluster", 110.0, lambda p: np.any([_norm(p - centre) <= radius for centre, radius in lobes], axis=0)),
    )
    return tuple(_filled(name, extent, inside, rng) for name, extent, inside in shapes)


def random_rotation(rng: np.random.Generator) -> FloatArray:
    """Draw a rotation matrix ``(3, 3)``, uniform over all orientations, from a normalized random quaternion."""
    w, x, y, z = _unit(rng.standard_normal(4))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def add_particle(
    charge: FloatArray,
    model: ParticleModel,
    *,
    rotation: FloatArray,
    centre_px: tuple[float, float],
    pixel_size_angstrom: float,
) -> None:
    """Add the blob centres of one particle, in projection, to an image, in place.

    Each blob is shared among the four pixels around its centre; `spread_blobs` then gives all of them their width at
    once, which is 50 times faster than drawing Gaussians one by one.

    Parameters
    ----------
    charge
        ``(y, x)``, volt * angstrom; what falls outside is cut off.
    model
        The particle.
    rotation
        ``(3, 3)``, applied to (z, y, x); the beam runs along z.
    centre_px
        ``(y, x)``, may be fractional; the centre of pixel 0 is 0.
    pixel_size_angstrom
        Sampling of the image.
    """
    height, width = charge.shape
    centres = (model.points_angstrom @ rotation.T)[:, 1:] / pixel_size_angstrom + np.asarray(centre_px)
    corner = np.floor(centres).astype(np.int64)
    fraction = centres - corner
    for step_y, step_x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        y, x = corner[:, 0] + step_y, corner[:, 1] + step_x
        share = np.abs(1 - step_y - fraction[:, 0]) * np.abs(1 - step_x - fraction[:, 1])
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        potential = share * model.blob_volt_angstrom3 / pixel_size_angstrom**2
        np.add.at(charge, (y[inside], x[inside]), potential[inside])


def spread_blobs(
    charge: FloatArray, *, pixel_size_angstrom: float, width_angstrom: float = BLOB_WIDTH_ANGSTROM
) -> FloatArray:
    """Give every blob its Gaussian width; the sum is kept, the borders wrap around.

    Parameters
    ----------
    charge
        What `add_particle` filled.
    pixel_size_angstrom
        Sampling.
    width_angstrom
        Standard deviation of the blobs.

    Returns
    -------
    ndarray
        Projected potential, volt * angstrom.
    """
    shape = (charge.shape[0], charge.shape[1])
    # Sharing among four pixels has blurred a little already: by the variance f (1 - f), 1/6 pixel^2 in the mean.
    variance = max(width_angstrom**2 - pixel_size_angstrom**2 / 6, 0.0)
    kernel = np.exp(-2 * np.pi**2 * variance * frequencies(shape, pixel_size_angstrom) ** 2)
    return np.fft.irfft2(np.fft.rfft2(charge) * kernel, s=shape)


def place_particles(
    models: tuple[ParticleModel, ...],
    count: int,
    *,
    extent_angstrom: tuple[float, float],
    rng: np.random.Generator,
) -> list[tuple[int, float, float]]:
    """Scatter particles so that their projections do not overlap by more than a tenth.

    Parameters
    ----------
    models
        Drawn from with equal chance.
    count
        How many are wanted. When the field is full after 40 tries for one, that one is left out.
    extent_angstrom
        Height and width of the field; centres lie inside, so particles at the border are cut.
    rng
        Source of chance.

    Returns
    -------
    list of (model index, y, x)
        Positions in angstrom.
    """
    placed: list[tuple[int, float, float]] = []
    taken = np.zeros((count, 3))
    for _ in range(count):
        choice = int(rng.integers(len(models)))
        radius = models[choice].radius_angstrom
        for y, x in rng.uniform((0, 0), extent_angstrom, size=(40, 2)):
            others = taken[: len(placed)]
            if np.all(np.hypot(others[:, 0] - y, others[:, 1] - x) >= 0.9 * (others[:, 2] + radius)):
                taken[len(placed)] = y, x, radius
                placed.append((choice, float(y), float(x)))
                break
    return placed


def ice_thickness(
    shape: tuple[int, int], *, pixel_size_angstrom: float, mean_angstrom: float, rng: np.random.Generator
) -> FloatArray:
    """Draw the thickness of the ice: a plane of random direction and a soft texture upon it.

    Parameters
    ----------
    shape
        ``(y, x)``.
    pixel_size_angstrom
        Sampling.
    mean_angstrom
        Mean thickness. The plane changes it by up to 20 % towards the corners, the texture by 4 % rms over
        distances of 400 angstrom and more.
    rng
        Source of chance.

    Returns
    -------
    ndarray
        Angstrom, nowhere below a tenth of the mean.
    """
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.2)
    y = np.linspace(-1, 1, shape[0])[:, None]
    x = np.linspace(-1, 1, shape[1])[None, :]
    plane = slope * (np.sin(angle) * y + np.cos(angle) * x) / np.sqrt(2)
    texture = _random_field(shape, pixel_size_angstrom, rng, lambda f: np.exp(-((400 * f) ** 2)) / (f + 1 / 4000))
    return mean_angstrom * np.maximum(1 + plane + 0.04 * texture, 0.1)


def ice_granularity(shape: tuple[int, int], *, pixel_size_angstrom: float, rng: np.random.Generator) -> FloatArray:
    """Draw the grain of amorphous ice, mean 0 and rms 1, to be scaled into a phase.

    It is what makes Thon rings: nearly white, falling to 1/e at 1/7 per angstrom because water keeps moving under the
    beam.
    """
    return _random_field(shape, pixel_size_angstrom, rng, lambda f: np.exp(-((7 * f) ** 2)))


def frequencies(shape: tuple[int, int], pixel_size_angstrom: float) -> FloatArray:
    """Return the length of the frequency vector, 1/angstrom, laid out as `numpy.fft.rfft2` of a ``(y, x)`` image."""
    y = np.fft.fftfreq(shape[0], pixel_size_angstrom)[:, None]
    x = np.fft.rfftfreq(shape[1], pixel_size_angstrom)[None, :]
    return np.hypot(y, x)


def _random_field(
    shape: tuple[int, int],
    pixel_size_angstrom: float,
    rng: np.random.Generator,
    amplitude: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * amplitude(frequencies(shape, pixel_size_angstrom))
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=shape)
    return field / max(float(field.std()), np.finfo(np.float64).tiny)


def _filled(
    name: str, extent: float, inside: Callable[[FloatArray], npt.NDArray[np.bool_]], rng: np.random.Generator
) -> ParticleModel:
    spacing = BLOB_SPACING_ANGSTROM
    axis = np.arange(-extent - spacing, extent + 1.5 * spacing, spacing)
    lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    points = lattice + rng.uniform(-0.4, 0.4, size=lattice.shape) * spacing
    points = points[inside(points)]
    return ParticleModel(name, points - points.mean(axis=0), PROTEIN_CONTRAST_VOLT * spacing**3)


def _cluster_lobes(rng: np.random.Generator) -> list[tuple[FloatArray, float]]:
    """Six balls, each overlapping the one before it or the first."""
    lobes: list[tuple[FloatArray, float]] = [(np.zeros(3), 38.0)]
    for _ in range(5):
        base, base_radius = lobes[int(rng.integers(min(2, len(lobes))))]
        radius = float(rng.uniform(20, 32))
        lobes.append((base + _unit(rng.standard_normal(3)) * 0.85 * (base_radius + radius) * 0.9, radius))
    return lobes


def _norm(vectors: FloatArray) -> FloatArray:
    return np.sqrt((vectors**2).sum(axis=-1))


def _unit(vector: FloatArray) -> FloatArray:
    return vector / np.sqrt((vector**2).sum())
