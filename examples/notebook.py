"""cryoplug in a notebook: simulate, denoise, look, evaluate."""

# %% [markdown]
# # cryoplug in a notebook
#
# Run the cells one after another in VS Code, Spyder or PyCharm, or turn the file into a Jupyter notebook
# (`jupytext --to notebook notebook.py`). `python notebook.py` runs all of it, in about a minute without a GPU.
# It needs `pip install "cryoplug[figures]"`, and writes into `notebook_output/`.

# %% Names, and where things go
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import cryoplug

OUT = Path("notebook_output")
# Side in pixels: large enough for some forty particles. A smaller number is faster.
SIZE = int(os.environ.get("CRYOPLUG_NOTEBOOK_SIZE", "768"))

# %% [markdown]
# ## Simulate
# Three micrographs with a known truth. `noisy` is what a microscope would give; `even` and `odd` are its halves, and `clean`
# is the truth.

# %% Simulate
made = cryoplug.simulate(OUT / "simulated", count=3, size=SIZE, specimen="random", kinds=2, seed=3)
print(made)

# %% [markdown]
# ## Denoise an array
# Read a micrograph, and denoise it in memory. The pixel size is in angstrom; the general model needs it.


# %% Denoise an array
def read(path):
    """Give all pixels of a micrograph, (y, x) from the lowest row up, and its pixel size in angstrom."""
    with cryoplug.open_micrograph(path) as micrograph:
        return micrograph.read_rows(0, micrograph.shape[0]), micrograph.pixel_size_angstrom


raw, pixel_size = read(made.outputs[0])
denoised = cryoplug.denoise(raw, pixel_size_angstrom=pixel_size)
print(denoised.shape, denoised.dtype, f"{pixel_size:.2f} A/px")

# %% [markdown]
# ## Denoise files
# The same as `cryoplug denoise` on the command line: micrographs, previews, a page for the browser, a STAR file for RELION.
# Call it again, and it does only what is missing.

# %% Denoise files
done = cryoplug.denoise(
    OUT / "simulated" / "micrographs.star", OUT / "denoised", star=OUT / "denoised" / "micrographs.star"
)
print(done)
done.raise_for_failures()

# %% [markdown]
# ## Look
# Raw, denoised and the truth, each on its own grey limits: the middle 99 % of its pixels. Then what was removed, which should
# be noise alone: if you see particles in it, the denoiser takes signal away.

# %% Look
truth, _ = read(OUT / "simulated" / "clean" / made.outputs[0].name)
figure, axes = plt.subplots(2, 2, figsize=(9, 9), layout="constrained")
pictures = {"raw": raw, "denoised": denoised, "truth": truth, "removed (raw - denoised)": raw - denoised}
for ax, (title, image) in zip(axes.flat, pictures.items(), strict=True):
    low, high = np.percentile(image, [0.5, 99.5])
    ax.imshow(image, cmap="gray", origin="lower", vmin=low, vmax=high)
    ax.set_title(title)
    ax.set_axis_off()
figure.savefig(OUT / "look.png", dpi=120)

# %% [markdown]
# ## Evaluate
# How far from the truth, with the best Gaussian blur and the Wiener filter beside it. Without a truth, leave `clean` out:
# the halves judge.

# %% Evaluate
judged = cryoplug.evaluate(
    OUT / "simulated" / "noisy", OUT / "evaluation", clean=OUT / "simulated" / "clean", overwrite=True
)
print(judged)
print(judged.table)

# %% [markdown]
# ## Where to go on
# Train on your own halves: `cryoplug convert --pairs halves ...`, then `cryoplug train`; then give `checkpoint=` to
# `cryoplug.denoise`. For many arrays, load the network once: `cryoplug.Denoiser.from_checkpoint("general")`.
