"""What the model reads carries nothing: equal samples, constant or repeated columns, padding.

Why it harms

A batch whose samples are all equal asks one input for many answers. A column that is constant acts
as a bias, and one that is there twelve times counts twelvefold. The mean over 100 positions of
which 95 are padding is the padding:

    mean = 0.05 mean of the words + 0.95 pad

so all samples are nearly alike after it.

An example

    h = embedding(tokens).mean(1)                        # tokens are padded to 100
    h = (h * mask).sum(1) / mask.sum(1).clamp(min=1)     # as it should be

How it is measured

On the batch: whether all samples of every input equal each other; of a table (samples, columns) the
share of columns that are constant and not zero, and of those that repeat another column exactly
and are not zero for most samples (pixels, words and one-hot places often agree by being off).
Of a mean over the positions of (samples, positions, features): the share of the positions whose
vector is not zero and that of half of the samples at the same place. Of the targets of torch's
losses, where each sample ends or begins with one value as long as its input is filled there too:
the share of them, unless the loss leaves them out. Equal samples are a note if
nothing is known of the targets, or if they are equal too.

Limits

    limit = 0.9       of the positions are padding: texts cut to a batch's longest have up to 0.7
    FILLED = 0.6      of the targets are padding and count: more than one and a half times as many
                      as the others
    MOST = 0.5        of the columns are constant, or repeat another: a pair of equal halves has 0.5

Remedies

Look at what builds the batch (advice). A mean over what is there, by its mask (advice).

When it is wrong

A dummy batch of ones, given to look at the network alone. Sequences whose common part is what
counts.

References: Kapoor and Narayanan 2023 (faults in the making of data sets).
"""

from __future__ import annotations

from collections.abc import Iterable

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy, Severity
from unvanish.core.trace import Trace
from unvanish.rules import _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import DATA, REMARK

NEEDS = ("static", "step")
EXPLAINS = ("DEP001", "ACT003", "GRF004", "NRM003", "ATT001", "ATT002")
MOST, FILLED = 0.5, 0.6


def check(trace: Trace, *, limit: float = 0.9) -> Iterable[Fault]:
    """One fault for equal samples, else for constant and repeated columns; one for padding."""
    inputs = trace.where("input")
    if not inputs:
        raise NotApplicable("the batch holds no tensor")
    found = _find_alike(trace, inputs) or _find_columns(trace, inputs)
    return [*found, *_find_padding(trace, limit), *_find_filled(trace)]


def _find_alike(trace: Trace, inputs: list[int]) -> list[Fault]:
    """All samples of the batch are the same."""
    if not all(trace.sites[i].facts.get("alike") for i in inputs):
        return []
    answers = [trace.sites[i].facts for i in trace.where("output")]
    differ = any(f.get("labels", 0) > 1 or f.get("target_std", 0.0) > 0 for f in answers)
    number = trace.facts.get("batch_size") or 0
    return [
        _report(
            "warning" if differ else "note",
            f"all {number} samples of the batch are the same"
            + (", and their targets differ: no model can tell them apart" if differ else ""),
            _places.label(trace, inputs),
            Evidence("samples that differ", 0, limit="> 0"),
            Remedy("look-at-batch", _places.label(trace, inputs), "look at what the loader gives", "advice"),
        )
    ]


def _find_columns(trace: Trace, inputs: list[int]) -> list[Fault]:
    """Columns of a table that are constant, or are there several times."""
    found = []
    for i in inputs:
        facts, name = trace.sites[i].facts, trace.sites[i].label
        for share, what, why in (
            (
                facts.get("constant_columns", 0.0),
                "are constant",
                "drop them, or look at how they are encoded",
            ),
            (facts.get("repeated_columns", 0.0), "repeat another column", "keep each of them once"),
        ):
            if share > MOST:
                number = Evidence(f"columns that {what}", share, limit=f"< {MOST:g}", site=name)
                remedy = Remedy("look-at-batch", (name,), why, safety="advice")
                cause = f"{share:.0%} of the columns of {name} {what}: they tell the samples apart no more"
                found.append(_report("warning", cause, (name,), number, remedy))
    return found


def _find_padding(trace: Trace, limit: float) -> list[Fault]:
    """Means that padding dominates."""
    means = [i for i in trace.where("node") if "padding" in trace.sites[i].facts]
    padded = [i for i in means if trace.sites[i].facts["padding"] > limit]
    if not padded:
        return []
    site = trace.sites[padded[0]]
    share, names = site.facts["padding"], _places.label(trace, padded)
    return [
        _report(
            "warning",
            f"{share:.0%} of the positions that {site.kind}{_places.locate(site)} averages are padding, the "
            "same for all samples: it drowns the rest",
            names,
            Evidence("positions that are padding", share, limit=f"< {limit:g}", site=site.label),
            Remedy(
                "mask-mean",
                names,
                "(h * mask).sum(1) / mask.sum(1).clamp(min=1), with a mask of what is there",
                safety="advice",
            ),
        )
    ]


def _find_filled(trace: Trace) -> list[Fault]:
    """Targets that are mostly padding, and count."""
    filled = trace.facts.get("filled")
    if filled is None or filled["share"] <= FILLED:
        return []
    share, label, line = (
        filled["share"],
        filled["label"],
        f" at {filled['source']}" if filled["source"] else "",
    )
    what = "zeros" if label is None else f"label {label}"
    how = "a mask: (loss * mask).sum() / mask.sum()" if label is None else f"ignore_index={label}"
    return [
        _report(
            "warning",
            f"{share:.0%} of the targets are padding ({what} where the input is filled up), and the loss"
            f"{line} counts them: they drown the rest",
            ("loss",),
            Evidence("targets that are padding", share, limit=f"< {FILLED:g}", site="loss"),
            Remedy("mask-loss", ("loss",), f"leave them out by {how}", "advice"),
        )
    ]


def _report(
    severity: Severity, cause: str, sites: tuple[str, ...], number: Evidence, remedy: Remedy
) -> Fault:
    return Fault(
        severity=severity,
        cause=cause,
        sites=sites,
        evidence=(number,),
        remedies=(remedy,),
        direction="none",
        tier=REMARK if severity == "note" else DATA,
        size=1.0,
    )


def sick() -> Case:
    """Texts of five words, padded to a hundred, and a plain mean."""
    return _case(masked=False)


def healthy() -> Case:
    """The mean of the words that are there."""
    return _case(masked=True)


def _case(masked: bool) -> Case:
    import torch
    from torch import Tensor, nn

    class Bag(nn.Module):
        """The mean of embedded words, and a head."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.hidden, self.head = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, words: Tensor) -> Tensor:
            h = torch.relu(self.hidden(self.embed(words)))
            there = (words != 0).unsqueeze(-1)
            mean = (h * there).sum(1) / there.sum(1) if masked else h.mean(1)
            out: Tensor = self.head(mean)
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = torch.zeros(32, 100, dtype=torch.long)
        words[:, :5] = torch.randint(1, 50, (32, 5))
        batch = words, torch.randint(0, 3, (32,))
        return Case(Bag(), batch, nn.CrossEntropyLoss(), story="padded texts")
