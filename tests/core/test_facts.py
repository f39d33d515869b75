"""The vocabulary of facts: what is read is known and written, what is written is read, and nobody changes a
site.
"""

from __future__ import annotations

import ast
import math
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unvanish
from unvanish.clinic.watch import rehearse
from unvanish.core import facts, loss_facts, run_facts
from unvanish.core.diagnosis import Case
from unvanish.core.plain import plain
from unvanish.core.trace import Site, Trace
from unvanish.probes import ModelCrash
from unvanish.rules import Rule, rules
from unvanish.store import Store, open_run
from unvanish.store.schema import name_file

SOURCE = Path(unvanish.__file__).parent
OTHER = ("lab", "train", "theory/program")  # their `facts` are those of a data set, or of a step of a program

ROLES = {
    "node": facts.NodeFacts,
    "parameter": facts.ParameterFacts,
    "step": facts.StepFacts,
    "input": facts.InputFacts,
    "output": facts.OutputFacts,
}
NESTED = (
    facts.GraphCut,
    loss_facts.AscentFacts,
    loss_facts.PairFacts,
    loss_facts.WishFacts,
    loss_facts.TermFacts,
    loss_facts.BroadcastFacts,
    loss_facts.AnswerFacts,
    loss_facts.FilledFacts,
    loss_facts.ClassNumberFacts,
    loss_facts.SummedFacts,
    loss_facts.SoftRouterFacts,
    loss_facts.SoftmaxFacts,
    loss_facts.BottomFacts,
    loss_facts.FlatPathFacts,
    loss_facts.NearPoleFacts,
    loss_facts.SwapFacts,
    facts.DeadTermFacts,
    facts.ForeignFacts,
    facts.WrongGradientFacts,
    facts.AsideFacts,
    facts.LeakFacts,
    facts.CurvatureFacts,
    facts.ForcedFacts,
    facts.RouterFacts,
    facts.HookFacts,
    facts.PrecisionFacts,
    run_facts.BrokenFacts,
    run_facts.CriticalFacts,
    run_facts.HistoryFacts,
    run_facts.HoldingFacts,
    run_facts.LabelFacts,
    run_facts.ModeFacts,
    run_facts.BatchFacts,
    run_facts.PlanFacts,
)
VOCABULARY = {
    *facts.SiteFacts.__annotations__,
    *facts.TraceFacts.__annotations__,
    *typing.get_args(facts.TheoryKey),
    *(key for table in NESTED for key in table.__annotations__),
}

# written and read by no code of ours, with the reason
SHOWN = {
    "what the JSON report says of an operation": {"causal", "heads", "query_tokens"},
    "what the JSON report says of a parameter: why it has no gradient, or shares one": {
        *("executed", "tied", "zero_third"),
    },
    "what the JSON report says of a loss, a recurrence, a cut": {"wrong", "reverse", "call"},
    "what the JSON report says of the precision": {"overflowed", "precision_live", "range"},
    "what calls for a look": {"nil"},
    "how a run was watched: its page and its export show it": {
        *("budget", "every", "exact", "looks", "name", "optimizers", "python"),
    },
}
# read off other things in the same functions: steps of a program, data sets, lists of words
ELSEWHERE = {
    *("bias", "bias_power", "cat", "cells", "classes", "float", "kind", "peak", "sites", "taps"),
}


# -- what is read


def files() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(OTHER):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def read_keys(tree: ast.Module) -> set[str]:
    """Keys that a module reads off facts: the constants in x["k"], x.get("k"), "k" in x and where(k=...)."""
    giving = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns is not None and is_facts(node.returns)
    }
    scopes = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    return {key for scope in scopes for key in keys_of(scope, giving)}


def is_facts(annotation: ast.expr) -> bool:
    names = {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)}
    return any(name.endswith("Facts") or name == "GraphCut" for name in names)


def keys_of(scope: ast.FunctionDef, giving: set[str]) -> Iterator[str]:
    known = {a.arg for a in scope.args.args if a.annotation is not None and is_facts(a.annotation)}

    def holds(x: ast.expr) -> bool:
        """Whether an expression has to do with facts."""
        return any(
            (isinstance(n, ast.Attribute) and n.attr in ("facts", "_facts"))
            or (isinstance(n, ast.Name) and n.id in known)
            or (isinstance(n, ast.Call) and getattr(n.func, "id", getattr(n.func, "attr", "")) in giving)
            for n in ast.walk(x)
        )

    for _ in range(4):  # a name may hold what another one holds
        for n in ast.walk(scope):
            pairs: list[tuple[ast.expr, ast.expr]] = []
            if isinstance(n, ast.Assign):
                pairs = [(target, n.value) for target in n.targets]
            elif isinstance(n, ast.For | ast.comprehension):
                pairs = [(n.target, n.iter)]
            elif isinstance(n, ast.Lambda):
                known |= {a.arg for a in n.args.args if a.arg == "f"}  # max(facts, key=lambda f: f["k"])
            for target, value in pairs:
                if holds(value):
                    known |= {t.id for t in ast.walk(target) if isinstance(t, ast.Name)}
    for n in ast.walk(scope):
        if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Load) and holds(n.value):
            yield from constants(n.slice)
        elif isinstance(n, ast.Compare) and isinstance(n.ops[0], ast.In | ast.NotIn):
            if holds(n.comparators[0]):
                yield from constants(n.left)
        elif isinstance(n, ast.Call):
            name = getattr(n.func, "attr", getattr(n.func, "id", ""))
            if name == "get" and isinstance(n.func, ast.Attribute) and holds(n.func.value):
                yield from constants(n.args[0])
            elif name == "where" and isinstance(n.func, ast.Attribute):
                yield from (k.arg for k in n.keywords if k.arg)
            elif name == "read_steps" and len(n.args) == 2:  # a column of a watched training
                yield from constants(n.args[1])


def constants(x: ast.expr) -> Iterator[str]:
    if isinstance(x, ast.Constant) and isinstance(x.value, str):
        yield x.value


READ = {name: keys for name, tree in files() if (keys := read_keys(tree))}


def test_every_key_that_is_read_is_known():
    known = VOCABULARY | ELSEWHERE
    assert {name: sorted(keys - known) for name, keys in READ.items() if keys - known} == {}


def test_every_known_key_is_read_or_shown():
    shown = set().union(*SHOWN.values())
    read = set().union(*READ.values())
    assert VOCABULARY - read - shown == set()
    assert shown & read == set(), "read after all"


def test_a_fact_that_no_site_has_is_refused():
    with pytest.raises(KeyError, match="did you mean 'rectifier'"):
        Trace((), np.empty((1, 0, 30)), statistics=("x",) * 30).where("node", rectifyer=True)


# -- what is written

RULES = list(rules().values())


def examined(case: Case) -> Trace:
    if "training" in case.options:
        return rehearse(case).trace
    return unvanish.check(case.model, case.batch, case.loss, confirm=False, **case.options).trace


def predicted(case: Case) -> Trace:
    batch = case.batch[0] if isinstance(case.batch, tuple) else case.batch
    return unvanish.forecast(case.model, batch=batch).trace


@cache
def traces(code: str) -> tuple[Trace, ...]:
    """The traces of a rule's two cases, measured and predicted."""
    cases = [rules()[code].case(which) for which in ("sick", "healthy")]
    return tuple(trace for case in cases for trace in (examined(case), predicted(case)))


class Unlucky(nn.Module):
    """It raises after its first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.first(x)
        raise RuntimeError("out of luck")


class Mapped(nn.Linear):
    """Runs inside a transform, where operations are not read."""

    def __init__(self) -> None:
        super().__init__(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = torch.func.vmap(super().forward)(x)
        return made


class Counts(nn.Linear):
    """Takes a number from an iterator, which cannot be put back."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.numbers = iter(range(9))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + next(self.numbers)


class Halved(nn.Linear):
    """Scales what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 0.5)


class Forgetful(nn.Module):
    """A cell whose state leaves the graph after every step, and a hand-written function."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 4)
        for _ in range(8):
            state = self.cell(x, state.detach())
        doubled: Tensor = Double.apply(state)
        return doubled


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Noisy(nn.Module):
    """Drops, and takes the statistics of the batch, whatever the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.mean, self.var = (
            nn.Linear(4, 4),
            nn.Dropout(),
            torch.zeros(4),
            torch.ones(4),
        )

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.batch_norm(self.first(x), self.mean, self.var, training=True)
        dropped: Tensor = self.drop(nn.functional.dropout(h))
        return dropped


class Blended(nn.Module):
    """Two experts, mixed by a router that reads a constant."""

    def __init__(self):
        super().__init__()
        self.router, self.experts = nn.Linear(4, 2), nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(torch.ones_like(x)).softmax(-1)
        return sum(weights[:, i, None] * expert(x) for i, expert in enumerate(self.experts))


class Cast(nn.Linear):
    """Reads whole numbers as floats."""

    def __init__(self) -> None:
        super().__init__(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


def small_loss(output: Tensor, y: Tensor) -> Tensor:
    return 0.01 * nn.functional.cross_entropy(output.float(), y)


class Twice(nn.Module):
    """Two layers that are copies of each other, added up."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.other.load_state_dict(self.one.state_dict())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + self.other(x)


def others(folder: Path) -> Iterator[Trace]:
    """Traces of what no rule's case has: a crash, both directions, a cut-off cell, a run's folder."""
    x = torch.randn(6, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ModelCrash) as caught:
        unvanish.check(Unlucky(), x[:, 0])
    assert caught.value.trace is not None
    yield caught.value.trace
    yield unvanish.check(Forgetful(), x[:, 0], confirm=False).trace
    yield unvanish.check(Counts(), x[:, 0], confirm=False).trace
    yield unvanish.check(Mapped(), x[:, 0], confirm=False).trace
    yield unvanish.check(Noisy().eval(), x[:, 0], confirm=False).trace
    table = torch.arange(96.0).reshape(32, 3).remainder(7)
    columns = torch.cat([table, torch.ones(32, 1)], 1)
    yield unvanish.check(nn.Linear(4, 4), columns, confirm=False).trace
    yield unvanish.check(nn.Linear(4, 4), torch.ones(32, 4), confirm=False).trace
    yield unvanish.check(Cast(), (100 * table).long(), confirm=False).trace
    hooked = nn.Linear(4, 4)
    hooked.weight.register_hook(torch.zeros_like)
    yield unvanish.check(hooked, x[:, 0], confirm=False).trace
    yield unvanish.check(nn.LSTM(4, 4, bidirectional=True), x, lambda out: out[0].sum(), confirm=False).trace
    y = torch.arange(6) % 4
    for axis, loss, answers in (
        (0, nn.MSELoss(), nn.functional.one_hot(y, 4).float()),
        (1, nn.NLLLoss(), y),
        (1, lambda p, t: -p.log_softmax(1)[range(6), t].mean(), y),
    ):
        soft = nn.Sequential(nn.Linear(4, 4), nn.Softmax(axis))
        yield unvanish.check(soft, (x[:, 0], answers), loss, confirm=False).trace
    yield from compared(x, y)
    half = nn.Linear(4, 4).half()
    adam = torch.optim.Adam(half.parameters())
    answers = x[:, 0].half(), y
    yield unvanish.check(half, answers, small_loss, optimizer=adam, confirm=False).trace
    yield unvanish.check(Twice(), (x[:, 0], y), nn.CrossEntropyLoss(), confirm=False).trace
    broken = torch.full((6, 4), math.nan)
    yield unvanish.check(nn.Linear(4, 4), (x[:, 0], broken), nn.MSELoss(), confirm=False).trace
    net = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with unvanish.watch(net, optimizer, run=folder / "run", every=1, on_finding="silent") as eyes:
        for factor in (1.0, 1.0, math.nan):
            optimizer.zero_grad()
            value = factor * net(x).square().mean()
            value.backward()
            optimizer.step()
            eyes.step(value)
    yield eyes.diagnosis().trace
    yield open_run(folder / "run").trace()
    yield from unusual(x[:, 0], y)
    mixture = rules()["MOE001"].case("healthy")
    yield unvanish.check(Blended(), x[:, 0].repeat(2, 1), confirm=False).trace
    plan = {"optimizer": lambda m: torch.optim.Adam(m.parameters()), "steps": 3}
    yield rehearse(Case(mixture.model, mixture.batch, mixture.loss, {"training": plan})).trace
    for rank in (0, 1):
        store = Store(folder / "ranks", name=name_file(rank))
        store.describe(rank=rank, sessions=[[0, 2]], layout="", shards=1, relayed=[])
        store.close()
    yield open_run(folder / "ranks").trace()


class Rounded(nn.Module):
    """Two answers of one layer: one is rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        made = self.first(x)
        return made, made.round()


def unusual(x: Tensor, y: Tensor) -> Iterator[Trace]:
    """Traces of a term without a slope, a root next to zero, inputs over decades, a mode that was left on."""

    def both(found: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(found[0], y) + nn.functional.cross_entropy(found[1], y)

    yield unvanish.check(Rounded(), (x, y), both, confirm=False).trace

    def root(p: Tensor, y: Tensor) -> Tensor:
        return ((1 - p.softmax(1)[range(6), y]) ** 0.5).mean()

    sure = nn.Linear(4, 4)
    with torch.no_grad():
        sure.weight.zero_(), sure.bias.copy_(torch.tensor([200.0, 0, 0, 0]))
    yield unvanish.check(sure, (x, y), root, confirm=False).trace
    wide = torch.exp(3 * torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    wide[:, 1] *= 1e4
    yield unvanish.check(
        nn.Linear(4, 4), (wide, y.repeat(11)[:64]), nn.CrossEntropyLoss(), confirm=False
    ).trace
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with unvanish.watch(net, optimizer, nn.CrossEntropyLoss(), every=1, on_finding="silent") as eyes:
        for step in range(24):
            net.train(step < 4)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    yield eyes.diagnosis().trace


def compared(x: Tensor, y: Tensor) -> Iterator[Trace]:
    """Traces of what is read of axes, divisors, temperatures, swapped arguments and short inputs."""
    probabilities, yes = nn.functional.one_hot(y, 4).float(), (y > 1).float()
    labels = torch.randint(1, 4, (4, 6), generator=torch.Generator().manual_seed(0))
    turned = torch.randint(0, 4, (6, 4), generator=torch.Generator().manual_seed(0))
    filled = (torch.arange(6)[None] < torch.arange(6)[:, None]).float()[..., None]
    cases: tuple[tuple[Any, Any, Any], ...] = (
        (nn.Linear(4, 4), (x, turned), lambda o, t: nn.functional.cross_entropy(o.view(6, 4, 4), t)),
        (nn.Linear(4, 1), (x[:, 0], yes[:, None]), lambda o, t: nn.BCELoss()(o.clamp(0, 1), t)),
        (nn.Linear(4, 4), (x[:, 0], y), lambda o, t: nn.CrossEntropyLoss()(find_cosines(o), t)),
        (nn.Linear(4, 4), (x[:, 0], y), lambda o, t: nn.CrossEntropyLoss()(o.abs(), t)),
        (nn.Linear(1, 1), (filled, filled), nn.MSELoss()),
        (nn.Linear(4, 1), (x[:, 0], y), lambda o, t: (o[:, 0] - t).square().mean()),
        (nn.Linear(4, 1), x[:, 0], lambda o: (o[:, 0] - torch.arange(float(len(o))).log()).abs().mean()),
        (Halved(4, 4), (x[:, 0], y), nn.CrossEntropyLoss()),
        (nn.Linear(4, 4), (x[:, 0], y), lambda o, t: nn.CrossEntropyLoss()(o / 100, t)),
        (Neighbours(), (x[:, 0], y), nn.CrossEntropyLoss()),
        (Estimated(4, 40), (x[:, 0], y), nn.CrossEntropyLoss()),
        (TurnedRound(), (x[:, 0], (y, y)), lambda o, t: subtract(nn.CrossEntropyLoss(), o, t)),
        (nn.Linear(4, 4), (x[:, 0], probabilities), lambda o, t: nn.KLDivLoss()(t, o.softmax(1))),
        (
            nn.Sequential(nn.Linear(4, 4), nn.LogSoftmax(-1)),
            (x, labels),
            lambda o, t: nn.CTCLoss(zero_infinity=True)(o, t, (3, 3, 6, 6), (6, 6, 2, 2)),
        ),
    )
    for net, batch, loss in cases:
        yield unvanish.check(net, batch, loss, confirm=False).trace
    net = nn.Linear(4, 4)
    decaying = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=10.0)
    loss = nn.CrossEntropyLoss()
    yield unvanish.check(net, (x[:, 0], y), loss, optimizer=decaying, confirm=False).trace


class Estimated(nn.Linear):
    """Rounded with the wrong sign."""

    def forward(self, x: Tensor) -> Tensor:
        p = 2 * super().forward(x)
        return p.round() - p + p.detach()


class Turned(torch.autograd.Function):
    """The identity, whose gradient is turned round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class TurnedRound(nn.Linear):
    """Two answers, one behind a reversal."""

    def __init__(self) -> None:
        super().__init__(4, 4)

    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return out, Turned.apply(out)


def subtract(loss: Any, o: Any, t: Any) -> Tensor:
    made: Tensor = loss(o[0], t[0]) - loss(o[1], t[1])
    return made


class Neighbours(nn.Linear):
    """A mean over a ring of nodes."""

    def __init__(self) -> None:
        super().__init__(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        ring = (torch.eye(len(x)) + torch.eye(len(x)).roll(1, 0)) / 2
        return ring @ super().forward(x)


def find_cosines(o: Tensor) -> Tensor:
    o = nn.functional.normalize(o)
    return o @ o.T / 0.1


def test_every_known_key_is_written(tmp_path: Path):
    written: set[str] = set()
    every = [t for rule in RULES for t in traces(rule.code)] + list(others(tmp_path))
    for trace in every:
        written |= {*trace.facts} | {key for site in trace.sites for key in site.facts}
        for value in trace.facts.values():
            written |= {
                key for item in (value if isinstance(value, list) else [value]) for key in keys_in(item)
            }
    assert VOCABULARY - written == set()


def keys_in(value: object) -> set[str]:
    return {str(key) for key in value} if isinstance(value, Mapping) else set()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_facts_are_of_their_role_and_kind(rule: Rule):
    for trace in traces(rule.code):
        assert faults(trace.facts, facts.TraceFacts) == []
        for site in trace.sites:
            assert faults(site.facts, ROLES[site.role]) == [], site


def faults(value: Mapping[str, Any], table: Any) -> list[str]:
    """The keys of a dict that a TypedDict does not have, or has with values of another kind, or misses."""
    hints = typing.get_type_hints(table)
    wrong = [f"{k}: {v!r}" for k, v in value.items() if k not in hints or not fits(v, hints[k])]
    return wrong + sorted(table.__required_keys__ - value.keys())


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of a kind, without the leniency of isinstance: a bool is no int here."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if typing.is_typeddict(hint):
        return isinstance(value, Mapping) and faults(value, hint) == []
    if origin is Literal:
        return value in inner
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, kind) for kind in inner)
    if origin is np.ndarray:
        return isinstance(value, np.ndarray)
    if origin is tuple and inner[-1] is not Ellipsis:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (tuple, list):
        return isinstance(value, origin) and all(fits(item, inner[0]) for item in value)
    if isinstance(value, Mapping):
        return issubclass(type(value), origin) and all(
            fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items()
        )
    if hint is float:
        return type(value) in (float, int)
    return type(value) is (type(None) if hint is None else hint)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_no_site_is_changed_after_it_is_made(rule: Rule, monkeypatch: pytest.MonkeyPatch):
    """With facts that are read-only copies, everything is found as before: nothing writes into them, nor into
    the dict that a site was made of.
    """
    before = [[plain(dict(site.facts)) for site in trace.sites] for trace in traces(rule.code)]
    for noun in (Site, Trace):
        monkeypatch.setattr(noun, "__init__", frozen(noun.__init__))
    after = [trace.sites for trace in traces.__wrapped__(rule.code)]
    assert [[plain(site.facts) for site in sites] for sites in after] == before
    assert all(isinstance(site.facts, MappingProxyType) for sites in after for site in sites)


def frozen(make: Any) -> Any:
    def init(self: Any, *args: Any, **named: Any) -> None:
        make(self, *args, **named)
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    return init
