"""A deep post-norm transformer: normalising after each addition starves the last queries or tilts
the depth.

Why it harms

In post-norm order the stream itself is normalised after every block,

    x_(l+1) = LN(x_l + f_l(x_l))

so the identity path is damped by every LayerNorm. In deep stacks the tokens become alike, the
queries and keys of the late layers get almost no gradient, and training diverges without a warm-up.

How it is measured

At least `blocks` (default 12) additions in a row on the depth axis are followed by a normalisation
of the stream, and the gradient of some queries over that of their values is below `starved`
(default 1e-3), or the ratio over the depth is beyond `limit` nats (default 3).

Remedies

Pre-norm order (retrain). DeepNorm: skip times (2N)^(1/4), small weights in value, output and
feed-forward (retrain). Learning-rate warm-up (advice).

When it is wrong

Shallow post-norm models, such as the original six and BERT's twelve blocks, train well with
warm-up.

References: Xiong et al. 2020; Liu et al. 2020 (Admin); Wang et al. 2022 (DeepNet).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core import depth
from unvanish.core.diagnosis import Case, Evidence, Finding, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _depth

NEEDS = ("static", "step", "attention")
EXPLAINS = ("ATT002", "DEP001", "INI001", "INI002", "DEP002")


def check(trace: Trace, *, blocks: int = 12, starved: float = 1e-2, limit: float = 3.0) -> Iterable[Finding]:
    """One finding where a deep post-norm stream starves its queries or tilts the gradient."""
    norms = trace.where("node", stream_norm=True)
    if not norms:
        raise NotApplicable("no stream is normalised after its additions")
    rows = [trace.sites[i].facts for i in trace.where("node", cut=True, row_attention=True)]
    bare = 2 * sum(not f.get("row_residual") for f in rows) > len(rows)
    if len(norms) < blocks or bare:  # attention without a skip around it is another fault
        return []
    ratios = {i: trace.value(i, "query_value_log") for i in trace.where("node", family="attention")}
    known = {i: r for i, r in ratios.items() if not math.isnan(r)}
    worst = min(known, key=lambda i: known[i], default=None)
    reading = depth.read(trace, limit=limit)
    tilted = reading is not None and reading.severity and reading.cause in ("NRM002", "", "DEP002")
    alike = {i for i in known if trace.value(i, "token_cosine") > 0.95}
    worst = min(alike, key=lambda i: known[i], default=worst)
    starving = worst in alike and known[worst] < math.log(starved)
    if not starving and not tilted:
        return []
    lowest = known[worst] if worst is not None else math.nan
    share = math.exp(lowest) if math.isfinite(lowest) else 0.0
    cause = f"{len(norms)} normalisations after additions damp the stream: " + (
        f"the queries of {trace.sites[worst].label} get {share:.1e} of their values' gradient"
        if starving and worst is not None
        else _depth.said(reading)
        if reading is not None
        else ""
    )
    evidence = (
        Evidence("normalisations on the stream", len(norms), "", f"< {blocks}"),
        Evidence(
            "queries' gradient over values'",
            share,
            "",
            f"> {starved:g}",
            trace.sites[worst].label if worst is not None else "",
        ),
        *(_depth.evidence(reading) if reading is not None else ()),
    )
    late = sorted((i for i in known if known[i] < math.log(10 * starved)), key=lambda i: known[i])
    targets = _depth.labels(trace, late or norms)
    remedies = (
        Remedy("pre-normalisation", _depth.labels(trace, norms), "the identity path stays free"),
        Remedy(
            "deepnorm",
            _depth.labels(trace, norms),
            "a stronger skip and smaller branches",
            parameters={"alpha": len(norms) ** 0.25},
        ),
        Remedy("warm-up", (), "small first steps until the branches have settled", "advice"),
    )
    severity: Severity = "error" if share < starved / 10 else "warning"
    return [
        Finding(
            "NRM002",
            "post-normalisation",
            severity,
            cause,
            targets,
            evidence,
            remedies,
            "vanishing",
            max(7.0, -lowest if math.isfinite(lowest) else 7.0),
        )
    ]


def sick() -> Case:
    """Twenty-four post-norm layers, eight tokens."""
    return _case(24, pre=False)


def healthy() -> Case:
    """Twenty-four pre-norm layers."""
    return _case(24, pre=True)


def _case(layers: int, pre: bool) -> Case:
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        blocks = [
            nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=pre)
            for _ in range(layers)
        ]
        for block in blocks:
            nn.init.xavier_uniform_(block.linear1.weight)
            nn.init.xavier_uniform_(block.linear2.weight)
        net: Any = nn.Sequential(*blocks, nn.Linear(32, 4))
        batch = torch.randn(4, 8, 32), torch.randint(0, 4, (4, 8))

        def loss(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(output.flatten(0, 1), y.flatten())

        return Case(net, batch, loss, story=f"{layers} {'pre' if pre else 'post'}-norm layers")
