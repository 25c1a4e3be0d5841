"""Average the weights of checkpoints of one network: a step back towards a network that was better in some way.

    python examples/train_general/mean.py cryoplug/models/general state/general -o mean

That serves only when one was trained from the other, shortly and gently: else their channels mean different things, and the
mean is worse than both. Judge it like any other network.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    """Write the mean of all checkpoints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "checkpoints", type=Path, nargs="+", help="checkpoint folders; the record of the last one is kept"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint folder to write")
    arguments = parser.parse_args()
    weights = [load_file(folder / "model.safetensors") for folder in arguments.checkpoints]
    record = json.loads((arguments.checkpoints[-1] / "checkpoint.json").read_text())
    record["training"]["mean_with"] = [str(folder) for folder in arguments.checkpoints[:-1]]
    arguments.output.mkdir(parents=True, exist_ok=True)
    means = {name: torch.stack([one[name].float() for one in weights]).mean(0).half() for name in weights[-1]}
    save_file(means, arguments.output / "model.safetensors")
    (arguments.output / "checkpoint.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
