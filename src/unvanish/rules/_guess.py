"""Whether the loss of a watched training can be held against the entropy of its labels.

Limits

Of such a loss:

    OFF = 0.02       of the entropy: if it may be too small by more, the labels seen are too
                     few. Large vocabularies need a hundred thousand words
    AGREE = 0.02     of a loss: the loss that is known of the step is this cross-entropy. Of a
                     loss with other terms nothing is known
    MOSTLY = 0.9     of the losses read must be so: some steps have several losses
    VARIED = 0.9     of the losses read have labels that differ: those of a discriminator that
                     sees real ones and made ones in turn do not
    SMALL = 0.01     nats: an entropy below it leaves nothing to learn
"""

from __future__ import annotations

import numpy as np

from unvanish.core.run_facts import LabelFacts
from unvanish.rules._history import Floats

OFF, AGREE, MOSTLY, VARIED, SMALL = 0.02, 0.02, 0.9, 0.9, 0.01


def find_obstacle(labels: LabelFacts, taken: Floats, loss: Floats) -> str:
    """Why the loss cannot be held against the entropy of the labels; empty if it can."""
    guess, read = labels["guess"], labels["read"]
    if not guess > SMALL or labels["varied"] < VARIED:
        return "the labels of each loss are all the same"
    if labels["off"] > OFF * guess:
        return "too few labels were seen for so many classes"
    at = dict(zip(taken.astype(int).tolist(), loss.tolist(), strict=True))
    pairs = [(at[step], value) for step, value in read if np.isfinite(at.get(step, np.nan))]
    agreed = [abs(noted - value) <= AGREE * abs(value) for noted, value in pairs]
    if not agreed or np.mean(agreed) < MOSTLY:
        return "the loss is more than a cross-entropy"
    return ""
