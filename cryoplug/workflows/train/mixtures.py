"""The mixtures of a training: of two halves, of a single exposure with drawn noise, or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cryoplug.workflows.train.opening import Opened
from cryoplug.workflows.train.single import recorruption_of

if TYPE_CHECKING:
    from cryoplug.training.data.mixing import Mixer
    from cryoplug.training.data.recorruption import Recorruption


def mixer_of(opened: Opened, note: Callable[[str], None]) -> Mixer | Recorruption | None:
    """Give the object that makes mixtures of halves (if asked for and possible) or of single exposures; else None."""
    from cryoplug.training.data.balance import measure_balance
    from cryoplug.training.data.mixing import Mixer

    config, store = opened.request.config, opened.store
    if store.manifest is not None and store.manifest.pairs == "single":
        return recorruption_of(store, config, opened.device, note)
    if config.mix == 1.0:
        return None
    alike = store.manifest is None or store.manifest.halves_alike
    balance = measure_balance(store, opened.split.train, alike=alike)
    if balance is None:
        note(
            "the halves are not equally noisy and share too little signal to be mixed; cryoplug trains on them as they are"
        )
        return None
    if not alike:
        ratio = f"{balance.noise_ratio:.3g}"
        note(
            f"at equal signal, even has {ratio} times the noise variance of odd; cryoplug weights the mixtures for that"
        )
    return Mixer(config.mix, balance, seed=config.seed, device=opened.device)
