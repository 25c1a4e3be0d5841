"""The allowed values of options, which editors can offer; a test compares them with those of the command line."""

from __future__ import annotations

from typing import Literal, TypeAlias

Normalize: TypeAlias = Literal["percentile", "zscore", "robust", "none"]
Target: TypeAlias = Literal["image", "particles"]
Precision: TypeAlias = Literal["auto", "float32", "float16", "bf16"]
Tta: TypeAlias = Literal["auto", "on", "off"]
Direction: TypeAlias = Literal["auto", "even", "odd", "both"]
Baseline: TypeAlias = Literal["identity", "affine", "gaussian", "wiener"]
Specimen: TypeAlias = Literal["shapes", "random"]
Detector: TypeAlias = Literal["counting", "coincidence", "integrating", "interpolated", "cropped"]
