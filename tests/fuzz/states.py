"""What is done to modules: parametrizations, pruning, hooks, scripting; forwards that write to themselves."""

from __future__ import annotations

import collections
import copy
import itertools
import random
import types
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from tests.fuzz.kit import Do, register
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune


class Symmetric(nn.Module):
    def forward(self, w):
        return w.triu() + w.triu(1).mT


class Scaled(torch.Tensor):
    """A subclass that counts the functions it goes through."""

    seen = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


class Logging(nn.Module):
    """Writes to itself in every way that plain code does."""

    def __init__(self, d):
        super().__init__()
        self.a = nn.Linear(d, d)
        self.calls, self.history, self.cache = 0, [], {}
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        self.history.append(float(x.detach().mean()))
        self.cache["last"] = x.detach()
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.steps += 1
        return self.a(x - self.mean)


class Codebook(nn.Module):
    """Moves its codes in the forward, as vector quantisation does."""

    def __init__(self, d):
        super().__init__()
        self.register_buffer("codes", torch.randn(8, d))

    def forward(self, x):
        nearest = torch.cdist(x.detach(), self.codes).argmin(1)
        with torch.no_grad():
            self.codes.index_copy_(0, nearest, 0.9 * self.codes[nearest] + 0.1 * x.detach())
        return x + (self.codes[nearest] - x).detach()


class Teacher(nn.Module):
    """A moving average of its student."""

    def __init__(self, d):
        super().__init__()
        self.student = nn.Linear(d, d)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def forward(self, x):
        with torch.no_grad():
            for p, q in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                p.lerp_(q, 0.1)
        return self.student(x) + 0.1 * self.teacher(x)


class Growing(nn.Module):
    """Makes a part of itself at its first call."""

    def __init__(self, d):
        super().__init__()
        self.a = nn.Linear(d, d)
        self.extra = None

    def forward(self, x):
        if self.extra is None:
            self.extra = torch.ones(x.shape[1])
        return self.a(x) * self.extra


class Deep(nn.Module):
    """Keeps state where only a deep look finds it."""

    def __init__(self, d):
        super().__init__()
        self.a = nn.Linear(d, d)
        self.box = types.SimpleNamespace(n=0, memory=[torch.zeros(d)], table={"k": {"v": torch.zeros(2)}})
        self.queue = collections.deque([0.0], maxlen=3)
        self.numbers = np.zeros(2)
        self.draws = np.random.default_rng(0)
        self.dice = random.Random(0)
        self.own = torch.Generator().manual_seed(0)

    def forward(self, x):
        self.box.n += 1
        self.box.memory[0].add_(x.detach().mean(0))
        self.box.table["k"]["v"].add_(1)
        self.queue.append(float(x.detach().sum()))
        self.numbers += 1
        noise = float(self.draws.normal()) + self.dice.random() + torch.rand(1, generator=self.own)
        return self.a(x) + 0.1 * noise


class Lowrank(nn.Module):
    """A frozen layer with an adapter that begins at zero."""

    def __init__(self, d):
        super().__init__()
        self.a = nn.Linear(d, d).requires_grad_(False)
        self.down, self.up = nn.Linear(d, 2, bias=False), nn.Linear(2, d, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.a(x) + self.up(self.down(x))


class Bare(nn.Linear):
    """Its forward is replaced on the instance."""

    def __init__(self, d):
        super().__init__(d, d)
        self.forward = types.MethodType(lambda s, x: F.linear(x, s.weight, s.bias).relu(), self)


class Callable(nn.Module):
    """Overrides __call__."""

    def __init__(self, d):
        super().__init__()
        self.a = nn.Linear(d, d)

    def __call__(self, x):
        return self.a(x).sin()


def _pruned(d, r):
    module = nn.Linear(d, d)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prune.random_unstructured(module, "weight", 0.5)
    return module


def _hooked(d, r):
    module = nn.Sequential(nn.Linear(d, d), nn.Tanh())
    kind = r.choice(
        ["forward", "pre", "kwargs", "backward", "backward_pre", "parameter", "accumulate", "state"]
    )
    if kind == "forward":
        module[0].register_forward_hook(lambda m, a, o: o * 0.9)
    elif kind == "pre":
        module.register_forward_pre_hook(lambda m, a: (a[0] + 0.1,))
    elif kind == "kwargs":
        module.register_forward_hook(lambda m, a, k, o: o + 0, with_kwargs=True, always_call=True)
    elif kind == "backward":
        module[0].register_full_backward_hook(
            lambda m, i, o: tuple(None if g is None else g * 0.5 for g in i)
        )
    elif kind == "backward_pre":
        module.register_full_backward_pre_hook(lambda m, o: tuple(g * 2 for g in o))
    elif kind == "parameter":
        module[0].weight.register_hook(lambda g: g * 0.5)
    elif kind == "accumulate":
        module[0].weight.register_post_accumulate_grad_hook(lambda p: None)
    else:
        module.register_state_dict_post_hook(lambda *a: None)
    return module


def _scripted(d, r):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d)))


def _traced(d, r):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(nn.Sequential(nn.Linear(d, d), nn.Tanh()), torch.randn(2, d))


def _script_function(d, r):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Do(
            lambda s, x: s.f(s.a(x)),
            a=nn.Linear(d, d),
            f=torch.jit.trace(lambda x: x.tanh() * 2, torch.randn(2, d)),
        )


def _twice(d, r):
    part = nn.Sequential(nn.Linear(d, d), nn.Tanh())
    return nn.Sequential(part, nn.ReLU(), part)


def _tied(d, r):
    a, b = nn.Linear(d, d), nn.Linear(d, d)
    b.weight = a.weight
    return nn.Sequential(a, nn.ReLU(), b)


def _frozen(d, r):
    module = nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, d))
    for p in list(module.parameters())[: r.choice([1, 2, 4])]:
        p.requires_grad_(False)
    return module


def _noncontiguous(d, r):
    module = nn.Linear(d, d)
    module.weight = nn.Parameter(torch.randn(d, d).mT * 0.2)
    return module


def _expanded_parameter(d, r):
    return Do(lambda s, x: x * s.g, g=nn.Parameter(torch.randn(1).expand(d), requires_grad=False))


def _subclass(d, r):
    return Do(lambda s, x: F.linear(x, s.w), w=nn.Parameter(torch.randn(d, d).as_subclass(Scaled) / d**0.5))


def _subclass_inside(d, r):
    return Do(lambda s, x: s.a(x.as_subclass(Scaled)).as_subclass(torch.Tensor), a=nn.Linear(d, d))


def _lazy(d, r):
    module = nn.LazyLinear(d)
    module(torch.randn(2, d))
    return module


def _weight_drop(d, r):
    return Do(lambda s, x: F.linear(x, F.dropout(s.a.weight, 0.1, s.training)), a=nn.Linear(d, d))


def _module_dict(d, r):
    return Do(
        lambda s, x: sum(m(x) for m in s.m.values()) + s.p["b"] + sum(s.q),
        m=nn.ModuleDict({"a": nn.Linear(d, d), "b-c": nn.Tanh()}),
        p=nn.ParameterDict({"b": nn.Parameter(torch.zeros(d))}),
        q=nn.ParameterList([nn.Parameter(torch.zeros(d)) for _ in range(2)]),
    )


def _renamed(d, r):
    module = nn.Linear(d, d)
    module.add_module("forward_", nn.Linear(d, d))
    return Do(lambda s, x: s.m(x) + s.m.forward_(x), m=module)


def _dynamic(d, r):
    module = type("Made", (nn.Module,), {"forward": lambda s, x: getattr(s, "lin" + "ear")(x)})()
    module.linear = nn.Linear(d, d)
    return module


def _half_precision_buffers(d, r):
    module = Do(lambda s, x: s.a(x) * s.b.float() + s.c, a=nn.Linear(d, d))
    module.register_buffer("b", torch.ones(d, dtype=torch.float16), persistent=False)
    with torch.inference_mode():
        module.register_buffer("c", torch.zeros(d))
    return module


def _iterating(d, r):
    return Do(lambda s, x: s.a(x) * (1 + 0 * next(s.i)), a=nn.Linear(d, d), i=itertools.count())


register(
    "vec",
    weight_norm=lambda d, r: parametrizations.weight_norm(nn.Linear(d, d)),
    spectral_norm=lambda d, r: parametrizations.spectral_norm(nn.Linear(d, d)),
    orthogonal=lambda d, r: parametrizations.orthogonal(nn.Linear(d, d)),
    parametrized=lambda d, r: _parametrize(nn.Linear(d, d)),
    pruned=_pruned,
    hooked=_hooked,
    scripted=_scripted,
    traced=_traced,
    traced_function=_script_function,
    twice=_twice,
    tied=_tied,
    frozen=_frozen,
    noncontiguous=_noncontiguous,
    expanded_parameter=_expanded_parameter,
    subclass=_subclass,
    subclass_inside=_subclass_inside,
    lazy=_lazy,
    weight_drop=_weight_drop,
    module_dict=_module_dict,
    renamed=_renamed,
    dynamic=_dynamic,
    odd_buffers=_half_precision_buffers,
    logging=lambda d, r: Logging(d),
    codebook=lambda d, r: Codebook(d),
    teacher=lambda d, r: Teacher(d),
    growing=lambda d, r: Growing(d),
    deep=lambda d, r: Deep(d),
    lowrank=lambda d, r: Lowrank(d),
    bare=lambda d, r: Bare(d),
    callable=lambda d, r: Callable(d),
)


def _parametrize(module):
    parametrize.register_parametrization(module, "weight", Symmetric())
    return module


register(
    "seq",
    old_weight_norm=lambda d, r: _old_norm(nn.Conv1d(d, d, 1)),
    seq_tied=lambda d, r: Do(lambda s, x: s.a(s.a(x).relu()), a=nn.Linear(d, d)),
)


def _old_norm(conv):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        conv = torch.nn.utils.weight_norm(conv)
    return Do(lambda s, x: s.c(x.mT).mT, c=conv)
