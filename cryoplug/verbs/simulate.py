"""``cryoplug.simulate``: micrographs with a known truth, as ``cryoplug simulate`` makes them."""

from __future__ import annotations

from collections.abc import Sequence

from cryoplug.verbs.arguments import AnyPath, AnyPaths, path_of, paths_of
from cryoplug.verbs.choices import Detector, Specimen
from cryoplug.verbs.outcome import Outcome, Progress, outputs_of, remarks_of, reporting


def simulate(
    output: AnyPath,
    *,
    count: int = 6,
    size: int = 2048,
    pixel_size: float = 2.6,
    dose: float = 40.0,
    defocus: tuple[float, float] = (0.8, 2.5),
    particles: int | None = None,
    specimen: Specimen | None = None,
    kinds: int | None = None,
    map: AnyPaths = (),
    map_threshold: float | Sequence[float] = (),
    model: AnyPaths = (),
    voltage: float = 300.0,
    cs: float = 2.7,
    amplitude_contrast: float = 0.1,
    astigmatism: tuple[float, float] = (0.0, 0.0),
    phase_shift: tuple[float, float] = (0.0, 0.0),
    ice_thickness: float = 350.0,
    ice_grain: float = 0.012,
    dirt: bool = False,
    detector: Detector = "counting",
    device: str = "cpu",
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Make micrographs with a known truth.

    It does what the command ``cryoplug simulate`` does: same options, same defaults, same files, same errors. The folders
    ``noisy``, ``even`` and ``odd`` hold the exposure and its halves (noisy = even + odd, noise independent), ``clean`` the
    expected counts without noise, ``particles_only`` those of the particles in even ice.

    Parameters
    ----------
    output
        Folder for all of them; made when missing.
    count
        Number of micrographs, 1 to 100000.
    size
        Side of a micrograph in pixels, 64 to 8192.
    pixel_size
        Pixel size in angstrom, 0.5 to 20.
    dose
        Electrons per square angstrom over the whole exposure, above 0, at most 1000.
    defocus
        Lowest and highest underfocus in micrometres, 0 to 10; each micrograph draws its own.
    particles
        Particles on each micrograph, 0 to 20000; None decides by its area.
    specimen
        What to invent without `map` and `model`: ``shapes`` (five simple ones) or ``random`` (molecules); None for ``shapes``.
    kinds
        With `specimen` ``random``: number of molecules, 1 to 1000, mixed on each micrograph; None for 5.
    map
        Density maps (MRC, CCP4) of molecules.
    map_threshold
        Density above which a voxel belongs to the molecule, one for each map; empty takes mean plus one sigma.
    model
        Structures (PDB, mmCIF; they need ``cryoplug[simulate]``), their first biological assembly.
    voltage, cs
        Acceleration voltage in kilovolts, 60 to 1000; spherical aberration in millimetres, 0 to 10.
    amplitude_contrast
        Part of the contrast from lost electrons, 0 to 0.5.
    astigmatism
        Lowest and highest difference of the two defoci in angstrom, 0 to 20000.
    phase_shift
        Lowest and highest shift of a phase plate in degrees, 0 to 180; ``(0, 0)`` for no plate.
    ice_thickness
        Mean thickness of the ice in angstrom, 50 to 10000.
    ice_grain
        Rms phase of the grain of the ice in radians, 0 to 1.
    dirt
        Whether half of the micrographs have carbon, gold, crystals, cracks or frost.
    detector
        ``counting``, ``coincidence``, ``integrating``, ``interpolated`` or ``cropped``: camera, and what was done to its
        frames. This decides the colour of the noise.
    device
        ``cpu``, ``auto``, ``cuda`` or ``cuda:N``. On a GPU, ice and noise have other random numbers.
    seed
        0 or more; micrograph n depends only on the seed and n.
    overwrite
        Replace micrographs that were made with other settings.
    progress
        Called with the `FileResult` of each micrograph, as it comes; ``print`` will do.

    Returns
    -------
    Outcome
        `outputs` are the noisy micrographs; `lists` are ``micrographs.star`` (with the true CTF) and ``coordinates.star``.

    Raises
    ------
    UsageError
        An option is out of range, or `output` holds micrographs of other settings and `overwrite` is off.
    InputError
        A map or structure is missing, or holds no molecule.
    StorageError
        The output cannot be written.
    DeviceError
        The GPU is missing, or memory ran out.

    Examples
    --------
    >>> import cryoplug
    >>> made = cryoplug.simulate("simulated", count=1, size=128, pixel_size=2.6, seed=7)
    >>> made.outputs
    (PosixPath('simulated/noisy/mic_0001.mrc'),)
    >>> with cryoplug.open_micrograph("simulated/clean/mic_0001.mrc") as truth:
    ...     pixels = truth.read_rows(0, 128)
    >>> pixels.shape
    (128, 128)
    """
    from cryoplug.workflows.simulate import simulate as run
    from cryoplug.workflows.simulate import simulate_request

    request = simulate_request(
        output=path_of(output, "output"),
        count=count,
        size=size,
        pixel_size=pixel_size,
        dose=dose,
        defocus=defocus,
        particles=particles,
        specimen=specimen,
        kinds=kinds,
        maps=paths_of(map, "map"),
        thresholds=tuple(map_threshold) if isinstance(map_threshold, Sequence) else (map_threshold,),
        models=paths_of(model, "model"),
        voltage=voltage,
        cs=cs,
        amplitude_contrast=amplitude_contrast,
        astigmatism=astigmatism,
        phase_shift=phase_shift,
        ice_thickness=ice_thickness,
        ice_grain=ice_grain,
        dirt=dirt,
        detector=detector,
        device=device,
        seed=seed,
        overwrite=overwrite,
    )
    batch = run(request, reporting(progress))
    return Outcome(
        files=batch.files,
        outputs=outputs_of(batch),
        lists=batch.outputs,
        remarks=remarks_of(batch, ()),
        exit_code=batch.exit_code,
        details=batch.details,
    )
