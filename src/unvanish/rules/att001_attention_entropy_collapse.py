"""The attention's softmax is saturated: huge logits let every query see one token only.

Why it harms

The softmax passes a gradient to its logits in proportion to p (1 - p),

    dp_i/ds_j = p_i (delta_ij - p_j) -> 0 as p approaches one-hot

so queries and keys of a collapsed head stop learning, and the loss spikes when a choice flips.

An example

    scores = q @ k.transpose(-2, -1)                  # no 1/sqrt(d), large projections: hundreds
    weights = scores.softmax(-1)                      # one-hot

How it is measured

The mean entropy of the attention weights over ln(number of visible tokens): below `limit` it is a
warning, below half of it an error, and only if the largest logit is above `logits` as well. Sharp
attention at modest logits, as in trained models, is no fault. In a watched run one head below
half of `limit` is enough; logits that have grown past `logits` are a warning before the entropy
falls, and logits that grow towards it are one with the number of steps that are left.

Limits

    limit = 0.3   of ln T: healthy heads keep 0.58 or more (measured); half of the limit is an
                  error
    logits = 50   healthy ones are up to 10 (measured). A logit that stands so far above the
                  others leaves exp(-50) for them, which is 0 in float16
    TOKENS = 4    with fewer the entropy says little
    GROWN = 10    times the logits of the first looks of a watched run
    FIRST = 3     looks whose median is that start
    LOOKS = 6     looks that must be known before growth is judged

Remedies

Normalise queries and keys (QK-norm) (retrain). Re-initialise the query and key projections
(retrain). A smaller learning rate, or weight decay on those projections (advice).

When it is wrong

A head that copies by position may be one-hot on purpose.

References: Zhai et al. 2023 (sigma-Reparam); Dehghani et al. 2023 (ViT-22B, QK-norm);
Henry et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _places, _trend
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import BLIND, LOGITS

NEEDS = ("static", "attention")
LIVE = True
EXPLAINS = ("ATT002", "DEP002", "NRM002", "GRF004", "INI001", "INI002")
TOKENS = 4
GROWN, FIRST, LOOKS = 10, 3, 6


def check(trace: Trace, *, limit: float = 0.3, logits: float = 50.0) -> Iterable[Fault]:
    """One fault naming the attentions that see one token only."""
    attentions = trace.where("node", family="attention")
    places = [i for i in attentions if trace.sites[i].facts.get("tokens", 0) >= TOKENS]
    places = [i for i in places if math.isfinite(trace.value(i, "entropy"))]
    if not places:
        raise NotApplicable("the model has no attention over four tokens or more")
    live = bool(trace.facts.get("live"))
    sharp = [i for i in places if _is_sharp(trace, i, limit, live) and trace.value(i, "logit_max") > logits]
    if sharp:
        return [_report_saturation(trace, sharp, len(places), limit, logits)]
    return (_find_growth(trace, places, logits) or _foresee(trace, places, logits)) if live else []


def _is_sharp(trace: Trace, site: int, limit: float, live: bool) -> bool:
    """Whether an attention sees one token only; under watch, one of its heads."""
    return trace.value(site, "entropy") < limit or (live and trace.value(site, "head_entropy") < limit / 2)


def _report_saturation(trace: Trace, sharp: list[int], known: int, limit: float, logits: float) -> Fault:
    sharp = sorted(sharp, key=lambda i: trace.value(i, "entropy"))
    worst, site = sharp[0], trace.sites[sharp[0]]
    entropy, largest = trace.value(worst, "entropy"), trace.value(worst, "logit_max")
    targets = _places.label(trace, sharp)
    return Fault(
        severity="error" if entropy < limit / 2 else "warning",
        cause=f"the softmax{_places.locate(site)} is saturated: logits up to {largest:.0f} leave "
        f"{entropy:.0%} of the entropy",
        sites=targets,
        evidence=(
            Evidence("attention entropy / ln T", entropy, limit=f"> {limit:g}", site=site.label),
            Evidence("largest attention logit", largest, limit=f"< {logits:g}", site=site.label),
            Evidence("attentions affected", len(sharp), unit=f"of {known}"),
        ),
        remedies=(
            Remedy("qk-norm", targets, "normalised queries and keys bound the logits"),
            Remedy(
                "reinitialise",
                targets,
                "query and key projections of unit gain",
                parameters={"parts": ["query", "key"]},
            ),
            Remedy("lower-learning-rate", (), "logits grow fastest under long steps", safety="advice"),
        ),
        direction="vanishing",
        tier=BLIND,
        size=entropy,
    )


def _find_growth(trace: Trace, places: list[int], logits: float) -> list[Fault]:
    """Logits that have grown tenfold in a run, and beyond the limit, although the entropy still holds."""
    factors = {i: _growth(trace, i, logits) for i in places}
    grown = sorted(((factor, i) for i, factor in factors.items() if factor is not None), reverse=True)
    if not grown:
        return []
    factor, worst = grown[0]
    where, largest = trace.sites[worst].label, trace.value(worst, "logit_max")
    targets = _places.label(trace, [i for _, i in grown])
    return [
        Fault(
            severity="warning",
            cause=f"the attention logits of {where} have grown {factor:.0f} times, to {largest:.0f}",
            sites=targets,
            evidence=(
                Evidence("largest attention logit", largest, limit=f"< {logits:g}", site=where),
                Evidence(
                    "the same over the first looks", factor, unit="times", limit=f"< {GROWN:g}", site=where
                ),
                Evidence("attention entropy / ln T", trace.value(worst, "entropy"), site=where),
            ),
            remedies=(
                Remedy("qk-norm", targets, "normalised queries and keys bound the logits"),
                Remedy("lower-learning-rate", (), "logits grow fastest under long steps", safety="advice"),
            ),
            direction="vanishing",
            tier=LOGITS,
        )
    ]


def _foresee(trace: Trace, places: list[int], logits: float) -> list[Fault]:
    """Logits that will pass the limit if they go on as they do."""
    found = {i: _trend.follow(trace, i, "logit_max", logits, log=True) for i in places}
    first = _trend.find_first(found)
    if first is None:
        return []
    crossing, where = first.crossing, trace.sites[first.site].label
    now, start = math.exp(crossing.now), math.exp(crossing.start)
    return [
        Fault(
            severity="warning",
            cause=f"the attention logits of {where} grow, from {start:.2g} to {now:.2g} so far, and reach "
            f"{logits:g} {crossing.describe()}",
            sites=_places.label(trace, first.sites),
            evidence=(
                Evidence("largest attention logit", now, limit=f"< {logits:g}", site=where),
                Evidence("steps until it is at the limit", crossing.steps, site=where),
                Evidence(
                    "entropy / ln T of the sharpest head", trace.value(first.site, "head_entropy"), site=where
                ),
            ),
            remedies=(
                Remedy("qk-norm", (where,), "normalised queries and keys bound the logits"),
                Remedy("lower-learning-rate", (), "logits grow fastest under long steps", safety="advice"),
            ),
            direction="vanishing",
            tier=LOGITS,
        )
    ]


def _growth(trace: Trace, site: int, logits: float) -> float | None:
    """The largest logit of the last look over that of the first ones, if it has grown out of bounds."""
    column = trace.values[:, site, trace.statistics.index("logit_max")]
    known = column[np.isfinite(column)]
    if len(known) < LOOKS:
        return None
    first, last = float(np.median(known[:FIRST])), float(known[-1])
    return last / first if last > logits and last > GROWN * first else None


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
