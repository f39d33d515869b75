"""The output of one sample depends on other samples of the batch, without statistics of the batch.

Why it harms

Each sample is judged by its neighbours: the training loss looks well, and the prediction of a
sample alone, or in another order, is another one. It comes from an operation along the wrong
axis.

An example

    weights = torch.softmax(scores, dim=0)     # over the batch; the tokens are axis 1

How it is measured

If an operation gives a sign of it (a softmax, a norm or a running sum along the first axis, a
view that puts numbers of several samples side by side, an attention or a recurrent layer with as
many tokens or steps as there are samples, products of all samples with all, a layer that reads as
many numbers as there are samples after a transpose, rows of all samples that are scattered), the
gradient of one sample's output is taken with respect to the whole batch. Without a leak it is
exactly zero at every other sample. Named is the operation above which it still is.

Not judged are models with statistics of the batch, also those taken by hand; graphs, whose batch
or buffers hold an adjacency; outputs that compare all samples with all. What the loss does with
the batch, such as in-batch negatives, is no leak of the model.

Limits

None: the gradient at another sample is zero or not; less than 1e-6 of the own one is ignored. It
is a note if the first axis may be time, as for outputs (time, batch, classes), and if single
rows were made one sequence on purpose.

Remedies

Name the axis of the tokens or the features; transpose in place of `view`; set `batch_first=True`
(advice).

When it is wrong

Models that are meant to compare the samples of a batch, such as attention between data points.

References: Karpathy 2019, "A Recipe for Training Neural Networks" (backprop to chart
dependencies); Kossen et al. 2021 (attention between data points, on purpose).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.facts import LeakFacts
from unvanish.core.trace import Trace
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import DATA, REMARK

NEEDS = ("step",)
EXPLAINS = ("OUT007",)
WORDS = {
    "along": "runs along the axis of the samples",
    "reshape": "puts numbers of several samples side by side (a view is no transpose)",
    "product": "multiplies all samples with all",
    "attention": "attends over the samples (as many tokens as samples)",
    "recurrent": "steps through the samples (batch_first is False)",
    "scatter": "adds up rows of several samples at the places of one",
    "offset": "adds up the rows of all samples at the places of the first: their numbers lack its offset",
}
CHANGES = {
    "along": "give it the axis of the tokens or features, say dim=-1",
    "reshape": "transpose or permute the axes, and reshape only what belongs to one sample",
    "product": "multiply within each sample: keep the batch as the first axis of both factors",
    "attention": "set batch_first=True, or hand the tokens over as the first axis",
    "recurrent": "set batch_first=True, or hand the steps over as the first axis",
    "offset": "add the number of the sample times its rows to the places of each sample",
    "scatter": "add the number of the sample times its rows to the places of each sample",
}


def check(trace: Trace) -> Iterable[Fault]:
    """One fault naming the operation that mixes samples."""
    if not trace.where("parameter", reachable=True):
        raise NotApplicable("the loss reaches no parameter")
    leak = trace.facts.get("leak")
    return [] if leak is None else [_name(leak)]


def _name(leak: LeakFacts) -> Fault:
    meant = leak["rows"] and leak["how"] in ("attention", "recurrent", "product")
    loud = leak["sure"] and not meant and leak["how"] != "product"
    where, line = leak["path"] or "(model)", f" ({leak['line']})" if leak["line"] else ""
    doubt = "" if leak["sure"] else ", if the first axis is that of the samples"
    return Fault(
        severity="warning" if loud else "note",
        cause=f"the output of one sample depends on others{doubt}: an operation in {where}{line} "
        f"{WORDS[leak['how']]}",
        sites=(where,),
        evidence=(
            Evidence(
                "gradient at another sample, relative to the own one",
                leak["ratio"] if math.isfinite(leak["ratio"]) else "all of it",
                limit="0",
                site=where,
            ),
        ),
        remedies=(Remedy("mend-axis", (where,), CHANGES[leak["how"]], safety="advice"),),
        direction="none",
        tier=DATA if loud else REMARK,
    )


def sick() -> Case:
    """An attention pooling whose softmax runs over the batch."""
    return _case(axis=0)


def healthy() -> Case:
    """The same over the tokens, with in-batch negatives in the loss."""
    return _case(axis=1)


def _case(axis: int) -> Case:
    import torch
    from torch import Tensor, nn

    class Pooled(nn.Module):
        """A weighted mean of the tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.score, self.last = nn.Linear(8, 16), nn.Linear(16, 1), nn.Linear(16, 12)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.tanh(self.tokens(x))
            weights = torch.softmax(self.score(h), dim=axis)
            out: Tensor = self.last((weights * h).sum(1))
            return out

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(out @ out.T, y)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Case(Pooled(), (torch.randn(16, 5, 8), torch.arange(16)), loss, story="pooled tokens")
