"""A deep post-norm transformer: normalising after each addition starves the last queries or tilts
the depth.

Why it harms

In post-norm order the stream itself is normalised after every block,

    x_(l+1) = LN(x_l + f_l(x_l))

so the identity path is damped by every LayerNorm. In deep stacks the tokens become alike, the
queries and keys of the late layers get almost no gradient, and training diverges without a warm-up.

An example

    nn.TransformerEncoder(nn.TransformerEncoderLayer(512, 8), 24)    # norm_first=False, the default

How it is measured

At least `blocks` normalisations of the stream follow additions on the depth axis. Then one of two
must hold: the tokens of an attention are alike and the gradient of its queries over that of its
values is below `starved`, or the ratio over the depth is beyond `limit`. An attention without a
skip around it is another fault.

Limits

    blocks = 12      normalisations, as in the six post-norm layers of the first transformer,
                     which trains with warm-up; 12 layers without it do not (measured)
    starved = 0.01   of the values' gradient: in healthy nets it is 0.05 or more (measured)
    limit = 3        nats over the depth: up to 3 a net trains (measured, SGD and Adam)
    ALIKE = 0.95     mean cosine between tokens: without it, queries get little for other reasons.
                     Up to 0.86 in healthy nets, 0.9996 in one of collapsed rank (both measured)
    FARTHER = 10     times less than `starved` is an error; and attentions up to so many times
                     above it are named with the worst
    LEAST = 7        nats: the size at which it goes before other faults of the depth

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
from dataclasses import dataclass
from typing import Any

from unvanish.core.depth import Depth
from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _depth, _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import MEASURED

NEEDS = ("static", "step", "attention")
EXPLAINS = ("ATT002", "DEP001", "INI001", "INI002", "DEP002")
ALIKE = 0.95
FARTHER = 10
LEAST = 7.0  # nats


def check(trace: Trace, *, blocks: int = 12, starved: float = 1e-2, limit: float = 3.0) -> Iterable[Fault]:
    """One fault if a deep post-norm stream starves its queries or tilts the gradient."""
    norms = trace.where("node", stream_norm=True)
    if not norms:
        raise NotApplicable("no stream is normalised after its additions")
    if len(norms) < blocks or _lacks_skips(trace):
        return []
    queries = _read_queries(trace)
    starving = queries.alike and queries.log < math.log(starved)
    reading = _depth.read(trace, limit)
    if not starving and not (reading is not None and _is_tilted(reading)):
        return []
    share = math.exp(queries.log) if math.isfinite(queries.log) else 0.0
    cause = f"{len(norms)} normalisations after additions damp the stream: "
    if starving:
        cause += f"the queries of {queries.where} get {share:.1e} of their values' gradient"
    elif reading is not None:
        cause += _depth.describe(reading)
    stream = _places.label(trace, norms)
    return [
        Fault(
            severity="error" if share < starved / FARTHER else "warning",
            cause=cause,
            sites=_places.label(trace, queries.below(math.log(FARTHER * starved))) or stream,
            evidence=(
                Evidence("normalisations on the stream", len(norms), limit=f"< {blocks}"),
                Evidence("queries' gradient over values'", share, limit=f"> {starved:g}", site=queries.where),
                *(_depth.give_evidence(reading) if reading is not None else ()),
            ),
            remedies=(
                Remedy("pre-normalisation", stream, "the identity path stays free"),
                Remedy(
                    "deepnorm",
                    stream,
                    "a stronger skip and smaller branches",
                    parameters={"alpha": len(norms) ** 0.25},
                ),
                Remedy("warm-up", (), "small first steps until the branches have settled", safety="advice"),
            ),
            direction="vanishing",
            tier=MEASURED,
            size=max(LEAST, -queries.log if math.isfinite(queries.log) else LEAST),
        )
    ]


@dataclass(frozen=True)
class _Queries:
    """The attention whose queries get least: ln of their gradient over the values' (NaN if none is known),
    its name, and whether its tokens are alike; `logs`: those of all attentions.
    """

    logs: dict[int, float]
    log: float = math.nan
    where: str = ""
    alike: bool = False

    def below(self, log: float) -> list[int]:
        """The attentions with less than this, the least first."""
        return sorted((i for i in self.logs if self.logs[i] < log), key=lambda i: self.logs[i])


def _read_queries(trace: Trace) -> _Queries:
    """The queries of all attentions; one with tokens that are alike goes before one without."""
    logs = {i: trace.value(i, "query_value_log") for i in trace.where("node", family="attention")}
    logs = {i: log for i, log in logs.items() if not math.isnan(log)}
    if not logs:
        return _Queries({})
    alike = {i for i in logs if trace.value(i, "token_cosine") > ALIKE}
    worst = min(alike or logs, key=lambda i: logs[i])
    return _Queries(logs, logs[worst], trace.sites[worst].label, bool(alike))


def _is_tilted(reading: Depth) -> bool:
    """Whether the depth is out of bounds for this reason, or for none that excludes it."""
    return bool(reading.severity) and (_depth.blames(reading, __name__) or reading.cause in ("", "DEP002"))


def _lacks_skips(trace: Trace) -> bool:
    """Whether most attentions on the depth axis have no skip around them."""
    rows = [trace.sites[i].facts for i in trace.where("node", cut=True, row_attention=True)]
    return 2 * sum(not facts.get("row_residual") for facts in rows) > len(rows)


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
