"""Training loops with one fault each, and the same loops without it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from tests.clinic.watch.healthy_nets import Reader, Tokens
from tests.clinic.watch.loops import PLANS, Open, batches, fit, mlp
from torch import nn
from torch.nn import functional as F

Run = Callable[[Open, bool], None]
SICK: dict[str, tuple[tuple[str, ...], Run]] = {}  # codes of which the first must be one; the loop


def case(*codes: str) -> Callable[[Run], Run]:
    """Note a loop with the codes that name its fault."""

    def note(run: Run) -> Run:
        SICK[run.__name__] = codes, run
        return run

    return note


# -- the gradient is thrown away


@case("OPT006")
def cleared_by_the_model(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    fit(watching, model, optimizer, before_step=lambda _: model.zero_grad() if sick else None)


@case("OPT006")
def cleared_in_place(watching: Open, sick: bool) -> None:
    model = Reader(nn.GRU)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    clear = optimizer.zero_grad
    fit(
        watching, model, optimizer, before_step=lambda _: clear(set_to_none=False) if sick else None, steps=80
    )


@case("OPT006")
def cleared_without_a_loss_module(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-3)
    with watching(model, optimizer, None) as watch:
        for x, y in batches(100):
            optimizer.zero_grad()
            value = F.cross_entropy(model(x), y)
            value.backward()
            if sick:
                optimizer.zero_grad()
            optimizer.step()
            watch.step(value)


@case("OPT006")
def cleared_after_an_accumulation(watching: Open, sick: bool) -> None:
    model, loss = Tokens(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with watching(model, optimizer, loss):
        for x, y in batches(60):
            for part in (0, 1):
                (loss(model(x[part::2]), y[part::2]) / 2).backward()
            if sick:
                optimizer.zero_grad()
            optimizer.step()
            optimizer.zero_grad()


# -- a rate of zero, or one that died


def _scheduled(make: Callable[[Any, bool], Any], rate: float = 2e-3, steps: int = 150) -> Run:
    def run(watching: Open, sick: bool) -> None:
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), rate)
        plan = make(optimizer, sick)
        fit(watching, model, optimizer, after=lambda _: plan.step(), steps=steps)

    return run


SICK |= {
    "rate_zero": (("OPT006",), _scheduled(lambda o, sick: PLANS.LambdaLR(o, lambda s: 0.0 if sick else 1.0))),
    "rate_zero_in_all_but_time": (
        ("OPT006",),
        _scheduled(lambda o, sick: PLANS.LambdaLR(o, lambda s: max(0.0, 1 - s / (15 if sick else 150)))),
    ),
    "warmup_of_whole_epochs_from_zero": (
        ("OPT006",),
        _scheduled(lambda o, sick: PLANS.LambdaLR(o, lambda s: s // 40 if sick else min(1.0, s / 40))),
    ),
    "halved_at_each_batch": (
        ("OPT006",),
        _scheduled(lambda o, sick: PLANS.ExponentialLR(o, 0.5 if sick else 0.99)),
    ),
    "milestones_in_batches": (
        ("OPT006",),
        _scheduled(lambda o, sick: PLANS.MultiStepLR(o, [3, 6, 9, 12] if sick else [90, 120], 0.1)),
    ),
    "polynomial_in_batches": (
        ("OPT006",),
        _scheduled(lambda o, sick: PLANS.PolynomialLR(o, 12 if sick else 150, 2.0)),
    ),
}


# -- rounded away


def _rounded(make: Callable[[Any], Any], dtype: torch.dtype) -> Run:
    def run(watching: Open, sick: bool) -> None:
        kind = dtype if sick else torch.float32
        model, loss = mlp().to(kind), nn.CrossEntropyLoss()
        optimizer = make(model.parameters())
        with watching(model, optimizer, loss):
            for x, y in batches(150):
                optimizer.zero_grad()
                loss(model(x.to(kind)).float(), y).backward()
                optimizer.step()

    return run


SICK |= {
    "rounded_adam": (("PRC003",), _rounded(lambda p: torch.optim.Adam(p, 5e-5), torch.bfloat16)),
    "rounded_momentum": (
        ("PRC003",),
        _rounded(lambda p: torch.optim.SGD(p, 0.002, momentum=0.9), torch.bfloat16),
    ),
    "rounded_sgd": (("PRC003",), _rounded(lambda p: torch.optim.SGD(p, 0.01), torch.bfloat16)),
    "rounded_rmsprop": (("PRC003",), _rounded(lambda p: torch.optim.RMSprop(p, 3e-5), torch.bfloat16)),
}


# -- skipped, stale, not held, frozen


@case("OPT006")
def always_skipped(watching: Open, sick: bool) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu")
    with watching(model, optimizer, loss, scaler=scaler):
        for x, y in batches(60):
            optimizer.zero_grad()
            out = model(x)
            value = loss(out, y) + (0 * (out - out.detach()).sqrt().sum() if sick else 0)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()


@case("OPT006")
def loaded_by_assignment(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model.load_state_dict({k: v.clone() for k, v in mlp().state_dict().items()}, assign=sick)
    fit(watching, model, optimizer, steps=60)


@case("OPT006")
def copied_after_the_optimizer(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    fit(watching, copy.deepcopy(model) if sick else model, optimizer, steps=60)


@case("OPT006")
def head_replaced_after_the_optimizer(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    if sick:
        model[5] = nn.Linear(64, 5)
    fit(watching, model, optimizer, steps=60)


@case("OPT006")
def layer_replaced_in_the_middle(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def replace(step: int) -> None:
        if sick and step == 20:
            model[3] = copy.deepcopy(model[3])

    fit(watching, model, optimizer, after=replace)


def _partly_held(pick: Callable[[nn.Sequential], Any]) -> Run:
    def run(watching: Open, sick: bool) -> None:
        model = mlp()
        fit(watching, model, torch.optim.AdamW(pick(model) if sick else model.parameters(), 1e-3), steps=60)

    return run


SICK |= {
    "only_the_head": (("OPT004",), _partly_held(lambda m: m[5].parameters())),
    "group_forgotten": (
        ("OPT004",),
        _partly_held(lambda m: [{"params": m[0].parameters()}, {"params": m[3:].parameters()}]),
    ),
    "biases_only": (("OPT004",), _partly_held(lambda m: [p for p in m.parameters() if p.ndim == 1])),
    "one_layer_forgotten": (("OPT004",), _partly_held(lambda m: [*m[0].parameters(), *m[5].parameters()])),
}


def _frozen(pick: Callable[[nn.Sequential], nn.Module], at: int = 60) -> Run:
    def run(watching: Open, sick: bool) -> None:
        model = mlp()

        def freeze(step: int) -> None:
            if sick and step == at:
                pick(model).requires_grad_(False)

        fit(watching, model, torch.optim.AdamW(model.parameters(), 1e-3), after=freeze)

    return run


SICK |= {
    "frozen_first_layers": (("OPT006",), _frozen(lambda m: m[:3])),
    "frozen_middle": (("OPT006",), _frozen(lambda m: m[3])),
    "frozen_all_but_the_head": (("OPT006",), _frozen(lambda m: m[:5], 100)),
    "frozen_early": (("OPT006",), _frozen(lambda m: m[:5], 5)),
}


# -- gradients pile up


@case("OPT007")
def never_cleared_adam(watching: Open, sick: bool) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with watching(model, optimizer, loss):
        for x, y in batches(100):
            if not sick:
                model.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()


@case("OPT007")
def never_cleared_and_clipped(watching: Open, sick: bool) -> None:
    model, loss = Reader(nn.LSTM), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    with watching(model, optimizer, loss):
        for x, y in batches(60):
            if not sick:
                optimizer.zero_grad(set_to_none=False)
            loss(model(x), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()


@case("OPT007")
def cleared_once_an_epoch(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    with watching(model, optimizer, None) as watch:
        for step, (x, y) in enumerate(batches(100)):
            if not sick or step % 20 == 0:
                optimizer.zero_grad()
            value = F.cross_entropy(model(x), y)
            value.backward()
            optimizer.step()
            watch.step(value)


@case("OPT007")
def another_model_cleared(watching: Open, sick: bool) -> None:
    model, loss, other = Tokens(), nn.CrossEntropyLoss(), mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with watching(model, optimizer, loss):
        for x, y in batches(60):
            (other if sick else model).zero_grad()
            loss(model(x), y).backward()
            optimizer.step()


def _accumulated(parts: int, make: Callable[[Any], Any], clip: bool = False) -> Run:
    def run(watching: Open, sick: bool) -> None:
        model, loss = mlp(), nn.CrossEntropyLoss()
        optimizer = make(model.parameters())
        with watching(model, optimizer, loss):
            for x, y in batches(60):
                optimizer.zero_grad()
                for px, py in zip(x.chunk(parts), y.chunk(parts), strict=True):
                    (loss(model(px), py) / (1 if sick else parts)).backward()
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), 1e3)
                optimizer.step()

    return run


SICK |= {
    "sum_of_four_means": (("OPT007",), _accumulated(4, lambda p: torch.optim.SGD(p, 0.02))),
    "sum_of_eight_means": (("OPT007",), _accumulated(8, lambda p: torch.optim.SGD(p, 0.01, momentum=0.9))),
    "sum_of_sixteen_means": (("OPT007",), _accumulated(16, lambda p: torch.optim.AdamW(p, 1e-3))),
    "sum_of_means_below_a_limit": (("OPT007",), _accumulated(8, lambda p: torch.optim.SGD(p, 0.01), True)),
}


# -- steps too short, too long


def _short(make: Callable[[Any, bool], Any], model: Callable[[], nn.Module] = mlp) -> Run:
    def run(watching: Open, sick: bool) -> None:
        net = model()
        fit(watching, net, make(net.parameters(), sick), steps=150)

    return run


SICK |= {
    "short_adam": (("OPT002",), _short(lambda p, sick: torch.optim.Adam(p, 5e-6 if sick else 1e-3))),
    "short_adamw_tokens": (
        ("OPT002",),
        _short(lambda p, sick: torch.optim.AdamW(p, 3e-6 if sick else 1e-3), Tokens),
    ),
    "short_sgd": (("OPT002",), _short(lambda p, sick: torch.optim.SGD(p, 3e-4 if sick else 0.05))),
    "short_momentum": (
        ("OPT002",),
        _short(lambda p, sick: torch.optim.SGD(p, 2e-5 if sick else 0.02, momentum=0.9)),
    ),
}


def _jump(factor: float, at: int, make: Callable[[Any], Any], model: Callable[[], nn.Module] = mlp) -> Run:
    def run(watching: Open, sick: bool) -> None:
        net = model()
        optimizer = make(net.parameters())

        def jump(step: int) -> None:
            if step == at:
                for group in optimizer.param_groups:
                    group["lr"] *= factor if sick else 0.5

        fit(watching, net, optimizer, after=jump, steps=120)

    return run


SICK |= {
    "fiftyfold_at_the_end": (("OPT001",), _jump(50, 80, lambda p: torch.optim.AdamW(p, 1e-3), Tokens)),
    "hundredfold": (("OPT001",), _jump(100, 50, lambda p: torch.optim.Adam(p, 1e-3))),
    "thirtyfold_sgd": (("OPT001",), _jump(100, 60, lambda p: torch.optim.SGD(p, 0.05))),
    "twentyfold_recurrent": (
        ("OPT001",),
        _jump(60, 70, lambda p: torch.optim.Adam(p, 5e-3), lambda: Reader(nn.LSTM)),
    ),
}


def _one_step(at: int, rate: float, make: Callable[[Any], Any]) -> Run:
    def run(watching: Open, sick: bool) -> None:
        net = mlp()
        optimizer = make(net.parameters())
        usual = optimizer.param_groups[0]["lr"]

        def change(step: int) -> None:
            optimizer.param_groups[0]["lr"] = rate if sick and step == at else usual

        fit(watching, net, optimizer, before_step=change, steps=100)

    return run


SICK |= {
    "one_step_at_the_start": (("OPT001",), _one_step(2, 20.0, lambda p: torch.optim.SGD(p, 0.01))),
    "one_step_of_adam": (("OPT001",), _one_step(1, 3.0, lambda p: torch.optim.Adam(p, 1e-4))),
    "one_step_later": (("OPT001",), _one_step(12, 50.0, lambda p: torch.optim.SGD(p, 0.01))),
}


# -- upwards, shrinking


def _upwards(sign: float, **options: Any) -> Run:
    def run(watching: Open, sick: bool) -> None:
        model, loss = mlp(), nn.CrossEntropyLoss()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4, **(options if sick else {}))
        with watching(model, optimizer, loss):
            for x, y in batches(100):
                optimizer.zero_grad()
                ((sign if sick else 1.0) * loss(model(x), y)).backward()
                optimizer.step()

    return run


SICK |= {
    "negative_loss": (("LOS002",), _upwards(-1.0)),
    "small_negative_loss": (("LOS002",), _upwards(-0.01)),
    "maximised_loss": (("LOS002",), _upwards(1.0, maximize=True)),
    "minus_and_decay": (("LOS002",), _upwards(-2.0, weight_decay=0.1)),
}


def _decayed(make: Callable[[Any, float], Any], decay: float, model: Callable[[], nn.Module] = mlp) -> Run:
    def run(watching: Open, sick: bool) -> None:
        net = model()
        fit(watching, net, make(net.parameters(), decay if sick else 0.01), steps=150)

    return run


SICK |= {
    "decay_adamw": (("OPT009",), _decayed(lambda p, d: torch.optim.AdamW(p, 1e-3, weight_decay=d), 50.0)),
    "decay_sgd": (("OPT009",), _decayed(lambda p, d: torch.optim.SGD(p, 0.02, weight_decay=d), 5.0)),
    "decay_tokens": (
        ("OPT009",),
        _decayed(lambda p, d: torch.optim.AdamW(p, 1e-3, weight_decay=d), 100.0, Tokens),
    ),
    "decay_momentum": (
        ("OPT009",),
        _decayed(lambda p, d: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=d), 2.0),
    ),
}


# -- not finite, without an optimizer


@case("NUM001")
def nan_without_an_optimizer(watching: Open, sick: bool) -> None:
    model, loss = mlp(), nn.CrossEntropyLoss()
    with watching(model, None, None) as watch:
        for step, (x, y) in enumerate(batches(30)):
            model.zero_grad()
            value = loss(model(x * (math.nan if sick and step == 12 else 1.0)), y)
            value.backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.05 * p.grad
            watch.step(value)


@case("NUM001")
def infinite_loss_given_as_a_number(watching: Open, sick: bool) -> None:
    model = mlp()
    with watching(model, None, None) as watch:
        for step, (x, y) in enumerate(batches(30)):
            value = F.cross_entropy(model(x), y)
            value.backward()
            model.zero_grad()
            watch.step(math.inf if sick and step == 12 else float(value.detach()))


# -- what a watch hears without a loss module


@case("LOS002")
def raised_without_a_loss_module(watching: Open, sick: bool) -> None:
    model, sign = mlp(), -1.0 if sick else 1.0
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watching(model, optimizer, None):
        for x, y in batches(40):
            optimizer.zero_grad()
            (sign * F.cross_entropy(model(x), y)).backward()
            optimizer.step()


@case("LOS002")
def maximised_without_a_loss_module(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, maximize=sick)
    with watching(model, optimizer, None):
        for x, y in batches(40):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()


@case("OPT006")
def loss_rebuilt_from_its_number(watching: Open, sick: bool) -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with watching(model, optimizer, None):
        for x, y in batches(30):
            optimizer.zero_grad()
            value = F.cross_entropy(model(x), y)
            (torch.tensor(value.item(), requires_grad=True) if sick else value).backward()
            optimizer.step()


@case("OPT006")
def one_of_two_optimizers_never_steps(watching: Open, sick: bool) -> None:
    model = mlp()
    body = torch.optim.Adam(model[:-1].parameters(), 1e-3)
    head = torch.optim.Adam(model[-1].parameters(), 1e-3)
    with watching(model, [body, head], None):
        for x, y in batches(120):
            body.zero_grad()
            head.zero_grad()
            F.cross_entropy(model(x), y).backward()
            head.step()
            if not sick:
                body.step()
