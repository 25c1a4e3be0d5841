"""The model ``one_conv`` as cryoplug knows it; torch is imported only when the network is built."""

from cryoplug.models.registry import ModelSpec

ONE_CONV = ModelSpec(
    id="one_conv",
    description="one 3x3 convolution, 10 parameters: a template, not a denoiser",
    factory="cryoplug_template.network:build",
    receptive_field_px=1,  # an output pixel sees one pixel to every side
    layers=(("conv1", 1, 1),),
)
