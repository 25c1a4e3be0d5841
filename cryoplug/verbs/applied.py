"""How a checkpoint is applied, in Python: the arguments that ``cryoplug.denoise`` and ``cryoplug.evaluate`` share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, TypedDict, TypeVar

from cryoplug.inference.settings import ApplySettings
from cryoplug.verbs.arguments import bytes_of
from cryoplug.verbs.choices import Normalize, Precision, Target, Tta

F = TypeVar("F", bound=Callable[..., Any])


class Applied(TypedDict, total=False):
    """How a checkpoint is applied: arguments that `denoise` and `evaluate` share, with the same defaults.

    Parameters
    ----------
    normalize
        ``percentile``, ``zscore``, ``robust`` or ``none`` (the bare network); None takes that of the checkpoint.
    angpix
        Pixel size in angstrom that the network sees; 0 is the image's own; None takes that of the checkpoint.
    target
        ``image`` (the micrograph with its ice) or ``particles`` (everything that is not ice); None is ``image``.
    strength
        Part of the denoised image in the result, 0 (raw) to 1 (denoised).
    merge_highres
        Take detail finer than this, in angstrom, from the raw image; above 0.
    highpass, lowpass
        Remove everything larger, or finer, than this, in angstrom; above 0, such as 1000 and 20.
    output_angpix
        Pixel size in angstrom of a coarser grid for the result; None keeps the image's own grid.
    device
        ``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.
    precision
        Numbers inside the network on a GPU: ``auto``, ``float32``, ``float16`` or ``bf16``.
    tta
        Average 8 orientations, in 8 times the time: ``auto``, ``on`` or ``off``; True and False work, too.
    tile
        Side of a tile in pixels; 0 is automatic. The result does not depend on it.
    threads
        CPU threads; 0 takes all cores.
    max_memory
        Most memory on the CPU, such as ``"2GB"``, or in bytes; an estimate.
    """

    normalize: Normalize | None
    angpix: float | None
    target: Target | None
    strength: float
    merge_highres: float | None
    highpass: float | None
    lowpass: float | None
    output_angpix: float | None
    device: str
    precision: Precision
    tta: Tta | bool
    tile: int
    threads: int
    max_memory: int | str | None


_FIELDS = {"max_memory": "max_memory_bytes"}
"""Arguments whose field in the record has another name, which contains the unit."""
_PLACEHOLDER = "**applied\n    See `Applied`."
"""The text in a function's docstring that is replaced by the explanations of all these arguments."""


def applied_fields(applied: Mapping[str, Any]) -> dict[str, Any]:
    """Translate arguments into fields of `ApplySettings`; others are passed on unchanged."""
    fields = {_FIELDS.get(name, name): value for name, value in applied.items()}
    if "max_memory_bytes" in fields:
        fields["max_memory_bytes"] = bytes_of(fields["max_memory_bytes"])
    return fields


def refuse_unknown(function: str, given: Iterable[str], known: Container[str]) -> None:
    """Raise `TypeError`, as Python does, for an argument that a function does not have."""
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}; see help(cryoplug.{function})")


def full_signature(function: Callable[..., Any]) -> inspect.Signature:
    """Replace ``**applied`` in a signature by its arguments, with the defaults of `ApplySettings`."""
    signature, defaults = inspect.signature(function), ApplySettings()
    own = [item for item in signature.parameters.values() if item.name != "applied"]
    shared = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(defaults, _FIELDS.get(name, name)),
            annotation=hint.__forward_arg__,
        )
        for name, hint in Applied.__annotations__.items()
    ]
    return signature.replace(parameters=[*own, *shared])


def explains_applied(function: F) -> F:
    """Explain the arguments behind ``**applied`` in ``help()``, and in editors that look at the running function.

    A function with overloads has no such argument itself; its signature must be set by hand.
    """
    explained = (inspect.getdoc(Applied) or "").partition("Parameters\n----------\n")[2]
    function.__doc__ = (inspect.getdoc(function) or "").replace(_PLACEHOLDER, explained)
    if "applied" in inspect.signature(function).parameters:
        function.__signature__ = full_signature(function)  # type: ignore[attr-defined]
    return function
