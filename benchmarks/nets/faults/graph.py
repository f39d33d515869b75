"""GRF001 detached, GRF002 unused, GRF004 zero derivative, NUM001 non-finite, OPT004 not optimised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.nets import hosts, operations
from benchmarks.nets.draw import Draw
from benchmarks.nets.faults.common import changed, flat, replaced, unless, untouched
from benchmarks.nets.net import Net, Plant
from benchmarks.nets.operations import After, Bypass, Narrow, Operation, Scorer, Spare, WithoutGraph
from benchmarks.nets.reading import Reading

CUTS: dict[str, Operation] = {
    "detach": torch.Tensor.detach,
    "data": lambda x: x.data,
    "numpy": operations.through_numpy,
    "list": operations.through_list,
    "new tensor": lambda x: x.new_tensor(x.detach()),
}


def detached(draw: Draw) -> Plant:
    """GRF001: the graph is cut behind a module that is executed and trainable."""
    well = hosts.host(draw)
    names = [n for n in well.stream[:-1] if well.family == "resnet"]
    name = f"{draw.choice(names)}.branch" if names and draw.chance(0.3) else draw.choice(well.cut)
    mode = draw.pick("detach", "detach", "no_grad", "data", "numpy", "list", "new tensor")
    wrap: Callable[[nn.Module], nn.Module] = (
        WithoutGraph if mode == "no_grad" else lambda m: After(m, CUTS[mode])
    )
    sick = replaced(well, name, wrap, mode=mode, planted=[name])

    def symptom(sick: Reading, well: Reading) -> str:
        owners = {p.rpartition(".")[0] for p in sick.missing}
        return unless(
            cut=bool(sick.missing),
            executed=bool(owners & sick.executed),
            finite=sick.finite,
            well_whole=not well.missing,
        )

    return Plant(sick, well, symptom)


def unused(draw: Draw) -> Plant:
    """GRF002: something trainable that the forward never uses."""
    well = hosts.host(draw)
    same_shape = [n for n in well.stream[:-1] if well.family in ("resnet", "transformer")]
    mode = (
        draw.pick("spare module", "spare parameter", "bypassed")
        if same_shape
        else draw.pick("spare module", "spare parameter")
    )
    width = draw.randint(8, 64)
    if mode == "bypassed":
        name = draw.choice(same_shape)
        sick = replaced(well, name, Bypass, mode=mode, planted=[name])
        sick = sick.but(attentions=tuple(a for a in sick.attentions if not a.startswith(f"{name}.")))
    else:
        part = nn.Parameter(torch.randn(width)) if mode == "spare parameter" else spare_part(draw, width)
        sick = lifted(well, Spare(untouched(well).model, part)).but(facts={"mode": mode})

    def symptom(sick: Reading, well: Reading) -> str:
        owners = {p.rpartition(".")[0] for p in sick.missing} - {""}
        return unless(
            unused=bool(sick.missing),
            not_executed=not owners & sick.executed,
            finite=sick.finite,
            whole=not well.missing,
        )

    return Plant(sick, well, symptom)


def spare_part(draw: Draw, width: int) -> nn.Module:
    """A head, an old block or an auxiliary classifier that nobody calls."""
    return draw.pick(
        nn.Linear(width, 10),
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)),
        nn.LSTM(width, 8),
    )


def lifted(net: Net, model: nn.Module) -> Net:
    """The net with another root, under which the old one is called `net`."""
    up = {k: tuple(f"net.{n}" for n in getattr(net, k)) for k in ("stream", "layers", "attentions", "cut")}
    return net.but(model=model, head=f"net.{net.head}", sequence=net.sequence and f"net.{net.sequence}", **up)


FLAT: dict[str, Operation] = {
    "round": torch.round,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "clamp": lambda x: (x + 40 * float(x.detach().abs().max())).clamp(-1, 1) + torch.zeros_like(x),
}


def zero_derivative(draw: Draw) -> Plant:
    """GRF004: an operation that passes exactly no gradient."""
    well = hosts.host(draw)
    name = draw.choice(well.cut)
    width = features(well, name)
    mode = draw.choice([*FLAT, "norm of one", "softmax of one"] if width else list(FLAT))
    if mode == "norm of one":
        sick = replaced(well, name, lambda m: Narrow(m, width))
    elif mode == "softmax of one":
        sick = replaced(well, name, lambda m: Scorer(m, width))
    else:
        sick = replaced(well, name, lambda m: After(m, FLAT[mode]))

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(
            zero=bool(sick.zero), reachable=not sick.missing, finite=sick.finite, well_nonzero=not well.zero
        )

    return Plant(sick.but(facts={"mode": mode, "planted": [name]}), well, symptom)


def features(net: Net, name: str) -> int:
    """The size of the last dimension of a module's output where that is a feature dimension, else 0."""
    shape: list[torch.Size] = []
    hook = net.model.get_submodule(name).register_forward_hook(lambda m, a, o: shape.append(o.shape))
    with torch.no_grad():
        net.model(net.batch[0])
    hook.remove()
    return 0 if len(shape[0]) == 4 else shape[0][-1]


BREAKS: dict[str, Operation] = {
    "log(0)": operations.log_of_zero,
    "sqrt(negative)": torch.sqrt,
    "0/0": operations.masked_mean,
    "exp overflow": operations.overflow,
    "empty softmax": operations.masked_softmax,
    "where(sqrt)": operations.guarded_root,
    "std(constant)": operations.spread_of_constants,
    "acos(1)": operations.angle_at_one,
    "distance(0)": operations.distance_to_self,
}


def non_finite(draw: Draw) -> Plant:
    """NUM001: one module makes a NaN or an infinity, forward or only backward."""
    well = hosts.host(draw)
    name = draw.choice(well.cut)
    mode = draw.choice([*BREAKS, "weight"])
    if mode == "weight":
        sick = changed(well, [name], lambda m: spoil(next(m.parameters()), draw))
    else:
        sick = replaced(well, name, lambda m: After(m, BREAKS[mode]))

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(broken=not sick.finite, well_finite=well.finite)

    return Plant(sick.but(facts={"mode": mode, "planted": [name]}), well, symptom, native=True)


def spoil(parameter: Tensor, draw: Draw) -> None:
    """One entry NaN or infinite."""
    parameter.view(-1)[0] = draw.pick(float("nan"), float("inf"))


def not_optimised(draw: Draw) -> Plant:
    """OPT004: the optimizer was given only some of the trainable parameters."""
    well = hosts.host(draw)
    named = list(well.model.named_parameters())
    mode = draw.pick("head only", "without head", "without first", "one forgotten")
    keep: Callable[[int, str], bool] = {
        "head only": lambda i, n: n.startswith("head"),
        "without head": lambda i, n: not n.startswith("head"),
        "without first": lambda i, n: i >= max(1, len(named) // 3),
        "one forgotten": lambda i, n: i != len(named) // 2,
    }[mode]
    held = [p for i, (n, p) in enumerate(named) if keep(i, n)]
    sick = well.but(optimizer=hosts.optimizer(draw, held), facts={"mode": mode})
    well = well.but(optimizer=hosts.optimizer(draw, [p for _, p in named]))

    def symptom(sick: Reading, well: Reading) -> str:
        return unless(some_missing=0 < len(held) < len(named), well_flat=flat(well), finite=sick.finite)

    return Plant(sick, well, symptom)


PLANTS: dict[str, Callable[[Draw], Plant]] = {
    "GRF001": detached,
    "GRF002": unused,
    "GRF004": zero_derivative,
    "NUM001": non_finite,
    "OPT004": not_optimised,
}
