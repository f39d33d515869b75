"""The input's scale or offset is far from one, and the first layer is saturated, drowned or blown
up by it.

Why it harms

Weights are initialised for inputs of unit size. With raw pixels (mean 128, size 140) or metres the
first layer's

    z = W x + b,   std z = std W * sqrt(n_in) * rms x

leaves the range where the activation has a slope, an offset common to all samples drowns their
differences, and the first layer's gradient is larger than all others' by the same factor.

An example

    x = images.float()                       # 0 to 255; images.float() / 255 is 0 to 1
    h = torch.tanh(nn.Linear(784, 64)(x.flatten(1)))

How it is measured

The root mean square of each float input is above `limit`, or its |mean| over its standard deviation
above `offset`, and no normalisation comes before the first activation. The harm must show as well:
the first layer's units are saturated, its output is large, the samples are alike in it, or it is
recurrent and reads the input as it is. An input far above the limit, or saturated units, make it an
error. An input below `small` is a fault if the samples are alike in the first layer, or in the
second. Whole numbers that the model turns into floats are judged where the first layer reads them,
and so is what the model scales or shifts by itself before it: of looked-up vectors, if so much is
added that the samples hardly differ.
Features of uneven scale belong to INP002.

Limits

    limit = 20         root mean square of the input: healthy nets get up to 2.3 (measured), raw
                       pixels are 140. It separates raw units from features of a size of 1 to 10
    offset = 5         |mean| over the deviation: pixels in [0, 1] have 0.5 to 2. At 5 the
                       samples' cosine is above 0.96 before the first layer
    CENTRED = 2        |mean|: an input nearer to zero has no offset, however little it varies
    FAR = 5            times the limit is an error, a size of 100
    SATURATED = 0.3    of the units at the first layer, or up to NEAR operations after it: healthy
                       nets have up to 0.13 (measured)
    NEAR = 3           operations: a bias, a reshape and an activation
    PASSED_ON = 0.25   of the limit is what the first layer passes on at least if the scale harms:
                       PyTorch's default weights keep 0.58 of it
    ALIKE = 0.05       relative spread between samples: half of the least that DEP001 asks of
                       inputs
    small = 0.01       root mean square, if no value is above LARGEST times it: pixels divided by
                       255 twice have 0.002. Quiet sound has 0.01 and more
    ROUNDING = 1e-5    of the input's size: what is left below it of a difference is rounding
    LARGEST = 10       times the size, the largest value: one-hot and rare features have far more

Remedies

Standardise the input with the training set's mean and deviation (exact for the data, retrain for
the model). Put a BatchNorm in front (retrain).

When it is wrong

Inputs that are scaled inside the model, by a constant or an embedding, are judged by what the first
layer makes of them.

References: LeCun et al. 1998, section 4.3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from unvanish.core.diagnosis import Case, Evidence, NotApplicable, Remedy
from unvanish.core.trace import Trace
from unvanish.rules import _input, _places
from unvanish.rules._fault import Fault
from unvanish.rules._tiers import DATA

NEEDS = ("static", "step")
EXPLAINS = (
    "NUM001", "ACT001", "OUT003", "DEP001", "INI002", "INI001", "REC001", "REC002", "ACT003", "ATT001",
    "OUT001", "PRC001", "GRF004",
)  # fmt: skip
CENTRED = 2
FAR = 5
SATURATED = 0.3
NEAR = 3
PASSED_ON = 0.25
ALIKE = 0.05
LARGEST = 10
ROUNDING = 1e-5


def check(trace: Trace, *, limit: float = 20.0, offset: float = 5.0, small: float = 0.01) -> Iterable[Fault]:
    """One fault naming the inputs whose scale harms the first layer."""
    sizes = {i: trace.value(i, "forward_rms") for i in trace.where("input", floating=True)}
    sizes = {i: size for i, size in sizes.items() if math.isfinite(size)}
    first = _input.find_first_layer(trace)
    if first is not None and "fed_rms" in trace.sites[first].facts:
        return [] if _input.is_normalised(trace, first) else _find_whole(trace, first, limit)
    if not sizes:
        return _find_drowned(trace, first, limit)
    wrong = [i for i, size in sizes.items() if size > limit or _offset(trace, i) > offset]
    if first is None or _input.is_normalised(trace, first) or _input.find_uneven(trace):
        return []
    if not wrong:
        return _find_tiny(trace, sizes, first, small) or _find_scaled(trace, first, limit, small)
    harm = _describe_harm(trace, first, limit)
    if not harm:
        return []
    worst, where = max(wrong, key=lambda i: sizes[i]), trace.sites[first].label
    size, site = sizes[worst], trace.sites[worst]
    mean, std = site.facts.get("mean"), site.facts.get("std")
    return [
        Fault(
            severity="error" if size > FAR * limit or "saturated" in harm else "warning",
            cause=f"the input has mean {math.nan if mean is None else mean:.3g} and size {size:.3g}: "
            f"{harm} in {where}",
            sites=(*_places.label(trace, wrong), where),
            evidence=(
                Evidence("size of the input (rms)", size, limit=f"< {limit:g}", site=site.label),
                Evidence(
                    "|mean| / standard deviation",
                    _offset(trace, worst),
                    limit=f"< {offset:g}",
                    site=site.label,
                ),
                Evidence(
                    "size of the first layer's output (rms)",
                    trace.value(first, "forward_rms"),
                    limit="about 1",
                    site=where,
                ),
            ),
            remedies=(
                Remedy(
                    "standardise-input",
                    _places.label(trace, wrong)[:1],
                    "subtract the training set's mean, divide by its deviation",
                    parameters={"mean": mean, "std": std},
                ),
                Remedy(
                    "insert-normalisation",
                    (where,),
                    "a BatchNorm in front learns the scale",
                    parameters={"kind": "batch"},
                ),
            ),
            direction="none",
            tier=DATA,
            size=math.log(max(1.0, size)),
        )
    ]


def _find_whole(trace: Trace, first: int, limit: float) -> list[Fault]:
    """One fault if whole numbers that were turned into floats enter the first layer as they are."""
    site = trace.sites[first]
    size = site.facts["fed_rms"]
    harm = _describe_harm(trace, first, limit) if size > limit and site.facts.get("fed_whole") else ""
    if not harm:
        return []
    inputs = _places.label(trace, trace.where("input"))
    return [
        Fault(
            severity="warning",
            cause=f"whole numbers of size {size:.3g} enter {site.label} as they are: {harm}; were they ids?",
            sites=(*inputs, site.label),
            evidence=(Evidence("size of what enters (rms)", size, limit=f"< {limit:g}", site=site.label),),
            remedies=(
                Remedy(
                    "embed-or-scale",
                    inputs,
                    "ids are names: nn.Embedding gives each a vector; divide or standardise what is a size",
                    safety="advice",
                ),
            ),
            direction="none",
            tier=DATA,
            size=math.log(size),
        )
    ]


def _find_drowned(trace: Trace, first: int | None, limit: float) -> list[Fault]:
    """One fault if what is added to looked-up vectors, as raw positions, is so large that it drowns them."""
    if first is None or "scaled_rms" not in trace.sites[first].facts:
        raise NotApplicable("no input is a float tensor")
    if _input.is_normalised(trace, first):
        return []
    site, spread = trace.sites[first], trace.value(first, "spread")
    size = site.facts["scaled_rms"]
    if not (size > limit and spread < ALIKE):
        return []
    return [
        Fault(
            severity="warning",
            cause=f"what the model makes of its tokens before {site.label} is of size {size:.3g}, and the "
            f"samples differ by {spread:.2g} of that: are raw positions added to them?",
            sites=(site.label,),
            evidence=(
                Evidence(
                    "size of what the first layer reads (rms)", size, limit=f"< {limit:g}", site=site.label
                ),
                Evidence("spread between samples", spread, limit=f"> {ALIKE:g}", site=site.label),
            ),
            remedies=(
                Remedy(
                    "scale-once",
                    (site.label,),
                    "learned or sinusoidal positions, of the embedding's own size",
                    safety="advice",
                ),
            ),
            direction="none",
            tier=DATA,
            size=math.log(size),
        )
    ]


def _find_tiny(trace: Trace, sizes: dict[int, float], first: int, small: float) -> list[Fault]:
    """One fault if the inputs are so small that the first layer's bias is all that counts."""
    tiny = [i for i, s in sizes.items() if 0 < s < small and trace.value(i, "forward_max") < LARGEST * s]
    drowned = next((i for i in _list_layers(trace, first) if trace.value(i, "spread") < ALIKE), None)
    if len(tiny) < len(sizes) or drowned is None:
        return []
    worst, where = min(tiny, key=lambda i: sizes[i]), trace.sites[drowned].label
    site, spread = trace.sites[worst], trace.value(drowned, "spread")
    return [
        Fault(
            severity="warning",
            cause=f"the input is of size {sizes[worst]:.2g}: the bias of {where} drowns it, and the samples "
            f"differ by {spread:.2g} there; was it divided twice?",
            sites=(*_places.label(trace, tiny), where),
            evidence=(
                Evidence("size of the input (rms)", sizes[worst], limit=f"> {small:g}", site=site.label),
                Evidence("spread between samples", spread, limit=f"> {ALIKE:g}", site=where),
            ),
            remedies=(
                Remedy(
                    "standardise-input",
                    _places.label(trace, tiny)[:1],
                    "subtract the training set's mean, divide by its deviation",
                    parameters={"mean": site.facts.get("mean"), "std": site.facts.get("std")},
                ),
            ),
            direction="none",
            tier=DATA,
            size=-math.log(sizes[worst]),
        )
    ]


def _find_scaled(trace: Trace, first: int, limit: float, small: float) -> list[Fault]:
    """One fault if the model itself makes numbers far too small or too large of inputs that were neither."""
    site = trace.sites[first]
    size, top = site.facts.get("scaled_rms", 0.0), site.facts.get("scaled_max", 0.0)
    drowned = next((i for i in _list_layers(trace, first) if trace.value(i, "spread") < ALIKE), None)
    tiny = 0 < size < small and top < LARGEST * size and drowned is not None
    if not tiny and not (size > limit and _describe_harm(trace, first, limit)):
        return []
    given = max((trace.value(i, "forward_rms") for i in trace.where("input", floating=True)), default=0.0)
    how = "samples look alike behind it; was it divided twice?"
    if tiny and size < ROUNDING * given:
        how = f"what rounding leaves of an input of size {given:.2g}; is each sample one number throughout?"
    how = how if tiny else f"{_describe_harm(trace, first, limit)}; was it multiplied twice?"
    return [
        Fault(
            severity="warning",
            cause=f"what the model makes of its input before {site.label} is of size {size:.2g}: {how}",
            sites=(site.label,),
            evidence=(
                Evidence(
                    "size of what the first layer reads (rms)",
                    size,
                    limit=f"> {small:g}" if tiny else f"< {limit:g}",
                    site=site.label,
                ),
            ),
            remedies=(
                Remedy(
                    "scale-once",
                    (site.label,),
                    "scale it once, in the data or in the model, to a size of about one",
                    safety="advice",
                ),
            ),
            direction="none",
            tier=DATA,
            size=abs(math.log(size)),
        )
    ]


def _list_layers(trace: Trace, first: int) -> list[int]:
    """The first layer and the one after it."""
    own = trace.sites[first].order
    later = [
        i for i in trace.where("node") if trace.sites[i].family == "layer" and trace.sites[i].order > own
    ]
    return [first, *sorted(later, key=lambda i: trace.sites[i].order)[:1]]


def _offset(trace: Trace, site: int) -> float:
    """|mean| over the standard deviation; 0 for an input that is centred."""
    facts = trace.sites[site].facts
    mean, std = facts.get("mean", 0.0), facts.get("std", 1.0)
    return abs(mean) / std if std > 0 and abs(mean) > CENTRED else 0.0


def _describe_harm(trace: Trace, first: int, limit: float) -> str:
    """What the input's scale does to the first layer, in words, or ""."""
    saturated = _saturated_share(trace, first)
    if saturated > SATURATED:
        return f"{saturated:.0%} of the units are saturated"
    if trace.value(first, "forward_rms") > PASSED_ON * limit:
        return f"activations reach {trace.value(first, 'forward_max'):.3g}"
    if trace.value(first, "spread") < ALIKE:
        return "the samples differ too little"
    if trace.sites[first].family == "recurrent" and not _is_scaled_before(trace, first, limit):
        return "the gates and states are driven to their ends"
    return ""


def _is_scaled_before(trace: Trace, first: int, limit: float) -> bool:
    """Whether an operation of the model's own brings the input to a size within the limit, and centres it."""
    order = trace.sites[first].order
    before = [i for i in trace.where("node") if -1 < trace.sites[i].order < order]
    last = max(before, key=lambda i: trace.sites[i].order, default=None)
    return (
        last is not None
        and trace.value(last, "forward_rms") <= limit
        and trace.value(last, "cosine") < 1 - ALIKE
    )


def _saturated_share(trace: Trace, first: int) -> float:
    """The largest share of flat units near the first layer."""
    order = trace.sites[first].order
    near = [i for i in trace.where("node") if order <= trace.sites[i].order <= order + NEAR]
    shares = (trace.value(i, "saturated") for i in near)
    return max((share for share in shares if share > 0), default=0.0)


def sick() -> Case:
    """Raw pixels into a tanh net."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(
            nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)
        )
        batch = torch.randint(0, 256, (32, 64)).float(), torch.randint(0, 10, (32,))
        return Case(net, batch, nn.CrossEntropyLoss(), story="pixels from 0 to 255")


def healthy() -> Case:
    """The same raw pixels, into a BatchNorm."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
        batch = torch.randint(0, 256, (32, 64)).float(), torch.randint(0, 10, (32,))
        return Case(net, batch, nn.CrossEntropyLoss(), story="pixels, normalised by the model")
