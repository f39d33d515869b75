"""The attention's softmax is saturated: huge logits let every query see one token only.

Why it harms

The softmax passes a gradient to its logits in proportion to p (1 - p),

    dp_i/ds_j = p_i (delta_ij - p_j) -> 0 as p approaches one-hot

so queries and keys of a collapsed head stop learning, and the loss spikes when a choice flips.

How it is measured

The mean entropy of the attention weights over ln(number of visible tokens), `limit` (default 0.3)
is a warning, half of it an error, and only where the logits are huge: the largest above `logits`
(default 50). Sharp attention at modest logits, as trained models have it, is no fault. Fewer than
four tokens are not judged.

Remedies

Normalise queries and keys (QK-norm) (retrain). Re-initialise the query and key projections
(retrain). A smaller learning rate, or weight decay on those projections (advice).

When it is wrong

A head that copies by position may be one-hot on purpose and for good.

References: Zhai et al. 2023 (sigma-Reparam); Dehghani et al. 2023 (ViT-22B, QK-norm);
Henry et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _depth

NEEDS = ("static", "attention")
LIVE = True
EXPLAINS = ("ATT002", "DEP002", "NRM002", "GRF004", "INI001", "INI002")


def check(trace: Trace, *, limit: float = 0.3, logits: float = 50.0) -> Iterable[Finding]:
    """One finding naming the attentions that see one token only."""
    places = [
        i for i in trace.where("node", family="attention") if trace.sites[i].facts.get("tokens", 0) >= 4
    ]
    places = [i for i in places if math.isfinite(trace.value(i, "entropy"))]
    if not places:
        raise NotApplicable("the model has no attention over four tokens or more")
    sharp = [i for i in places if trace.value(i, "entropy") < limit and trace.value(i, "logit_max") > logits]
    if not sharp and trace.facts.get("live"):
        return _growing(trace, places, logits)
    if not sharp:
        return []
    sharp.sort(key=lambda i: trace.value(i, "entropy"))
    worst = sharp[0]
    entropy, largest = trace.value(worst, "entropy"), trace.value(worst, "logit_max")
    where = trace.sites[worst].label
    within = _depth.within(trace.sites[worst])
    cause = f"the softmax{within} is saturated: logits up to {largest:.0f} leave {entropy:.0%} of the entropy"
    evidence = (
        Evidence("attention entropy / ln T", entropy, "", f"> {limit:g}", where),
        Evidence("largest attention logit", largest, "", f"< {logits:g}", where),
        Evidence("attentions affected", len(sharp), f"of {len(places)}"),
    )
    targets = _depth.labels(trace, sharp)
    remedies = (
        Remedy("qk-norm", targets, "normalised queries and keys bound the logits"),
        Remedy(
            "reinitialise",
            targets,
            "query and key projections of unit gain",
            "retrain",
            {"parts": ["query", "key"]},
        ),
        Remedy("lower-learning-rate", (), "logits grow fastest under long steps", "advice"),
    )
    severity: Severity = "error" if entropy < limit / 2 else "warning"
    return [
        Finding(
            "ATT001",
            "attention-entropy-collapse",
            severity,
            cause,
            targets,
            evidence,
            remedies,
            "vanishing",
            20 - 10 * entropy,
        )
    ]


def _growing(trace: Trace, places: list[int], logits: float) -> Iterable[Finding]:
    """Logits that have grown tenfold in a run, and beyond the limit, although the entropy still holds."""
    column = trace.values[:, :, trace.statistics.index("logit_max")]
    grown = []
    for i in places:
        known = column[:, i][np.isfinite(column[:, i])]
        if len(known) >= 6 and known[-1] > logits and known[-1] > 10 * np.median(known[:3]):
            grown.append((float(known[-1] / np.median(known[:3])), i))
    if not grown:
        return []
    factor, worst = max(grown)
    where, largest = trace.sites[worst].label, trace.value(worst, "logit_max")
    cause = f"the attention logits of {where} have grown {factor:.0f} times, to {largest:.0f}"
    evidence = (
        Evidence("largest attention logit", largest, "", f"< {logits:g}", where),
        Evidence("the same over the first looks", factor, "times", "< 10", where),
        Evidence("attention entropy / ln T", trace.value(worst, "entropy"), "", "", where),
    )
    targets = _depth.labels(trace, [i for _, i in sorted(grown, reverse=True)])
    remedies = (
        Remedy("qk-norm", targets, "normalised queries and keys bound the logits"),
        Remedy("lower-learning-rate", (), "logits grow fastest under long steps", "advice"),
    )
    return [
        Finding(
            "ATT001",
            "attention-entropy-collapse",
            "warning",
            cause,
            targets,
            evidence,
            remedies,
            "vanishing",
            12.0,
        )
    ]


def sick() -> Case:
    """Query and key weights forty times too large."""
    return _case(40.0)


def healthy() -> Case:
    """Sharper than at the start, as trained heads are, but at modest logits."""
    return _case(2.5)


def _case(factor: float) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [
            nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(3)
        ]
        for block in blocks:
            block.self_attn.in_proj_weight.data[:64] *= factor
        net: Any = nn.Sequential(*blocks, nn.LayerNorm(32), nn.Linear(32, 4))
        batch = torch.randn(4, 10, 32), torch.randint(0, 4, (4, 10))

        def loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(output.flatten(0, 1), y.flatten())

        return Case(net, batch, loss, story="three pre-norm layers")
