"""What few models do: threads, dispatch modes, steps inside hooks, switches, parts that change places."""

from __future__ import annotations

import contextlib
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from tests.fuzz.kit import Do, register
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint


class Counting(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Refusing(torch.Tensor):
    """A subclass that knows a few functions only."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") not in ("linear", "tanh", "as_subclass", "mul", "__get__"):
            raise NotImplementedError(f"{func} is not supported")
        return super().__torch_function__(func, types, args, kwargs or {})


class Anomalous(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.a = nn.Linear(d, d)

    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.autograd.detect_anomaly(check_nan=False):
                return self.a(x).to(x.dtype)


class Stepping(nn.Module):
    """Its optimizer runs in the backward and drops the gradient."""

    def __init__(self, d):
        super().__init__()
        self.a = nn.Linear(d, d)
        optimizer = torch.optim.SGD(self.a.parameters(), lr=1e-3)

        def step(p):
            optimizer.step()
            p.grad = None

        self.a.weight.register_post_accumulate_grad_hook(step)

    def forward(self, x):
        return self.a(x)


class Reading(torch.autograd.Function):
    """Looks at its gradient as numbers and raises if it is odd."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        if not bool(torch.isfinite(g).all()):
            raise FloatingPointError("not finite")
        return g.clone()


class Stateful(torch.autograd.Function):
    seen = 0

    @staticmethod
    def forward(ctx, x):
        return x * 1

    @staticmethod
    def backward(ctx, g):
        return g


class Cached(nn.Module):
    """Keeps what it made, with its graph, for the next call."""

    def __init__(self, d):
        super().__init__()
        self.a = nn.Linear(d, d)
        self.last = None

    def forward(self, x):
        y = self.a(x)
        if self.last is not None and self.last.shape == y.shape:
            y = y + 0.1 * self.last.detach()
        self.last = y
        return y


class Weak(nn.Module):
    """Hides a module in a list, a method in an attribute, and a lock."""

    def __init__(self, d):
        super().__init__()
        self.a, self.hidden = nn.Linear(d, d), [nn.Linear(d, d).requires_grad_(False)]
        self.run, self.lock = self.go, threading.Lock()

    def go(self, x):
        with self.lock:
            return self.a(x) + self.hidden[0](x)

    def forward(self, x):
        return self.run(x)


class Property(nn.Module):
    """Its weight is a property, made anew at each look."""

    def __init__(self, d):
        super().__init__()
        self.raw = nn.Parameter(torch.randn(d, d))

    @property
    def weight(self):
        return self.raw / self.raw.norm()

    def forward(self, x):
        return F.linear(x, self.weight)


class Strict(nn.Linear):
    """Takes no input that requires a gradient, and no tensor of its own as one."""

    def forward(self, x):
        y = super().forward(x)
        if y.numel() and not y.is_contiguous():
            raise ValueError("contiguous only")
        return y


def _quantile(s, x):
    return x - torch.quantile(x.float(), 0.5, dim=1, keepdim=True).to(x.dtype)


def _thread(s, x):
    found = []
    worker = threading.Thread(target=lambda: found.append(s.a(x)))
    worker.start()
    worker.join()
    return found[0] if found else s.a(x)


def _pool(s, x):
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda m: m(x), s.m))


def _dispatched(s, x):
    with Counting():
        return s.a(x)


def _refusing(s, x):
    return s.a(x.as_subclass(Refusing)).tanh().as_subclass(torch.Tensor)


def _flex(s, x):
    with warnings.catch_warnings(), torch.no_grad():  # it has no backward on the CPU
        warnings.simplefilter("ignore")
        seen = flex_attention(x[:, None], x[:, None], x[:, None])[:, 0]
    return s.a(x + seen)


def _double_checkpoint(s, x):
    return checkpoint(lambda z: checkpoint(s.a, z, use_reentrant=False).sin(), x, use_reentrant=False)


def _on_cpu(s, x):
    with torch.autograd.graph.save_on_cpu():
        return s.a(x)


def _grad_switches(s, x):
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    y = s.b(x)
    torch.set_grad_enabled(before)
    return s.a(x) + y


def _seeded(s, x):
    torch.manual_seed(0)
    return s.a(x) + torch.randn_like(x)


def _forked(s, x):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        noise = torch.randn_like(x)
    return s.a(x) + noise


def _training_switch(s, x):
    was = s.training
    s.train(not was)
    y = s.a(x)
    s.train(was)
    return y


def _swap(s, x):
    s.a, s.b = s.b, s.a
    return s.a(x)


def _replace_parameter(s, x):
    s.a.weight = nn.Parameter(s.a.weight.detach() * 1.0)
    return s.a(x)


def _set_data(s, x):
    s.a.weight.data = s.a.weight.data * 0.999
    return s.a(x)


def _suppressed(s, x):
    with contextlib.suppress(RuntimeError):
        s.a(x.new_zeros(1, 1))
    return s.a(x)


def _functional_state(s, x):
    weights = {n: p + 0 for n, p in s.a.named_parameters()}
    return torch.func.functional_call(s.a, weights, (x,))


def _lbfgs_inside(s, x):
    shift = torch.zeros(x.shape[1], requires_grad=True)
    optimizer = torch.optim.SGD([shift], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (x.detach() + shift).pow(2).mean().backward()
        optimizer.step()
    return s.a(x + shift.detach())


def _scatter_reduce(s, x):
    index = (x.detach() > 0).long()
    return x + torch.zeros_like(x).scatter_reduce(1, index, s.a(x), "mean", include_self=False)


register(
    "vec",
    anomalous=lambda d, r: Anomalous(d),
    stepping=lambda d, r: Stepping(d),
    reading=lambda d, r: Do(lambda s, x: Reading.apply(s.a(x)), a=nn.Linear(d, d)),
    stateful=lambda d, r: Do(lambda s, x: Stateful.apply(s.a(x)), a=nn.Linear(d, d)),
    cached=lambda d, r: Cached(d),
    weak=lambda d, r: Weak(d),
    property=lambda d, r: Property(d),
    strict=lambda d, r: Strict(d, d),
    quantile=lambda d, r: Do(_quantile),
    thread=lambda d, r: Do(_thread, a=nn.Linear(d, d)),
    pool=lambda d, r: Do(_pool, m=nn.ModuleList([nn.Linear(d, d) for _ in range(2)])),
    dispatched=lambda d, r: Do(_dispatched, a=nn.Linear(d, d)),
    refusing=lambda d, r: Do(_refusing, a=nn.Linear(d, d)),
    double_checkpoint=lambda d, r: Do(_double_checkpoint, a=nn.Linear(d, d)),
    saved_on_cpu=lambda d, r: Do(_on_cpu, a=nn.Linear(d, d)),
    grad_switches=lambda d, r: Do(_grad_switches, a=nn.Linear(d, d), b=nn.Linear(d, d)),
    seeded=lambda d, r: Do(_seeded, a=nn.Linear(d, d)),
    forked=lambda d, r: Do(_forked, a=nn.Linear(d, d)),
    training_switch=lambda d, r: Do(_training_switch, a=nn.Linear(d, d)),
    swap=lambda d, r: Do(_swap, a=nn.Linear(d, d), b=nn.Linear(d, d)),
    replaced_parameter=lambda d, r: Do(_replace_parameter, a=nn.Linear(d, d)),
    set_data=lambda d, r: Do(_set_data, a=nn.Linear(d, d)),
    suppressed=lambda d, r: Do(_suppressed, a=nn.Linear(d, d)),
    functional_state=lambda d, r: Do(_functional_state, a=nn.Linear(d, d)),
    inner_optimizer=lambda d, r: Do(_lbfgs_inside, a=nn.Linear(d, d)),
    scatter_reduce=lambda d, r: Do(_scatter_reduce, a=nn.Linear(d, d)),
    huge=lambda d, r: Do(lambda s, x: s.a(x * 1e30) * 1e-30, a=nn.Linear(d, d)),
    tiny=lambda d, r: Do(lambda s, x: s.a(x * 1e-30) * 1e30, a=nn.Linear(d, d)),
    dead=lambda d, r: Do(
        lambda s, x: s.a(x.relu() * 0) + s.b, a=nn.Linear(d, d), b=nn.Parameter(torch.ones(d))
    ),
    compiled_module=lambda d, r: Do(lambda s, x: s.c(x), c=torch.compile(nn.Linear(d, d), backend="eager")),
    compiled_in_place=lambda d, r: _compile_in_place(nn.Sequential(nn.Linear(d, d), nn.Tanh())),
    parallel=lambda d, r: nn.DataParallel(nn.Linear(d, d)),
    quantised_embedding=lambda d, r: Do(
        lambda s, x: x + s.w[x.argmax(1).to(torch.uint8).long()], w=nn.Parameter(torch.randn(d, d))
    ),
    cond=lambda d, r: Do(
        lambda s, x: torch.where(x.sum() > 0, s.a(x), s.b(x)), a=nn.Linear(d, d), b=nn.Linear(d, d)
    ),
    many_outputs=lambda d, r: Do(
        lambda s, x: sum(torch.unbind(torch.stack([s.a(x)] * 3))), a=nn.Linear(d, d)
    ),
)
register("seq", flex=lambda d, r: Do(_flex, a=nn.Linear(d, d)))


def _compile_in_place(module):
    module.compile(backend="eager")
    return module
