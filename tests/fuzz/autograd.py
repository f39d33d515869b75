"""What models do with autograd: functions of their own, derivatives in the forward, hooks, transforms."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from tests.fuzz.kit import Do, register
from torch import nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap
from torch.utils.checkpoint import checkpoint, checkpoint_sequential


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x * factor

    @staticmethod
    def backward(ctx, g):
        return g * ctx.factor, None


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh() ** 2)


class Marked(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx, g):
        return g * 2


class WithIndices(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y, i = x.sort(1)
        ctx.mark_non_differentiable(i)
        ctx.save_for_backward(i)
        return y, i

    @staticmethod
    def backward(ctx, g, _):
        return torch.zeros_like(g).scatter(1, ctx.saved_tensors[0], g)


class Silent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        return x + y

    @staticmethod
    def backward(ctx, g):
        return g, None


class Unmaterialised(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        return x + 1, x * 2

    @staticmethod
    def backward(ctx, a, b):
        return (0 if a is None else a) + (0 if b is None else 2 * b)


class Freeing(torch.autograd.Function):
    """Works for one backward only, as functions do that hold and free memory of their own."""

    @staticmethod
    def forward(ctx, x):
        ctx.kept = x.detach().clone()
        return x.tanh()

    @staticmethod
    def backward(ctx, g):
        kept = ctx.kept
        del ctx.kept
        return g * (1 - kept.tanh() ** 2)


class Setup(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()


class Nested(torch.autograd.Function):
    """Its backward runs a graph of its own."""

    @staticmethod
    def forward(ctx, x):
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = ctx.x.tanh() * ctx.x
        return ctx.y.detach()

    @staticmethod
    def backward(ctx, g):
        return torch.autograd.grad(ctx.y, ctx.x, g, retain_graph=True)[0]


def _two(d):
    return nn.Sequential(nn.Linear(d, d), nn.Tanh())


register(
    "vec",
    own_function=lambda d, r: Do(lambda s, x: Twice.apply(s.a(x), 0.5), a=nn.Linear(d, d)),
    once=lambda d, r: Do(lambda s, x: Once.apply(s.a(x)), a=nn.Linear(d, d)),
    dirty=lambda d, r: Do(lambda s, x: Marked.apply(s.a(x)), a=nn.Linear(d, d)),
    with_indices=lambda d, r: Do(lambda s, x: WithIndices.apply(s.a(x))[0], a=nn.Linear(d, d)),
    silent=lambda d, r: Do(lambda s, x: Silent.apply(x, s.a(x)), a=nn.Linear(d, d)),
    unmaterialised=lambda d, r: Do(
        lambda s, x: Unmaterialised.apply(s.a(x))[s.k], a=nn.Linear(d, d), k=r.choice([0, 1])
    ),
    freeing=lambda d, r: Do(lambda s, x: Freeing.apply(s.a(x)), a=nn.Linear(d, d)),
    setup=lambda d, r: Do(lambda s, x: Setup.apply(s.a(x)), a=nn.Linear(d, d)),
    nested_graph=lambda d, r: Do(lambda s, x: Nested.apply(s.a(x)), a=nn.Linear(d, d)),
    checkpointed=lambda d, r: Do(
        lambda s, x: checkpoint(s.a, x, use_reentrant=s.re), a=_two(d), re=r.random() < 0.5
    ),
    checkpointed_parts=lambda d, r: Do(
        lambda s, x: checkpoint_sequential(s.a, 2, x, use_reentrant=False), a=nn.Sequential(_two(d), _two(d))
    ),
    func_grad=lambda d, r: Do(lambda s, x: x - 0.1 * grad(lambda z: s.a(z).pow(2).sum())(x), a=_two(d)),
    func_vmap=lambda d, r: Do(lambda s, x: vmap(lambda z: s.a(z) * z.norm())(x), a=_two(d)),
    func_vmap_random=lambda d, r: Do(
        lambda s, x: vmap(lambda z: F.dropout(s.a(z), 0.2), randomness="different")(x), a=_two(d)
    ),
    func_jacrev=lambda d, r: Do(lambda s, x: x + vmap(jacrev(s.a))(x).sum(1), a=_two(d)),
    func_jacfwd=lambda d, r: Do(
        lambda s, x: x + vmap(jacfwd(lambda z: (z * s.g).tanh()))(x).sum(1), g=nn.Parameter(torch.ones(d))
    ),
    func_hessian=lambda d, r: Do(
        lambda s, x: x + vmap(hessian(lambda z: s.a(z).sum()))(x).mean(1), a=_two(d)
    ),
    func_jvp=lambda d, r: Do(
        lambda s, x: jvp(lambda z: (z * s.g).sin(), (x,), (torch.ones_like(x),))[1],
        g=nn.Parameter(torch.ones(d)),
    ),
    func_vjp=lambda d, r: Do(_vjp, a=_two(d)),
    func_scores=lambda d, r: Do(lambda s, x: x + vmap(grad(lambda z: s.a(z).logsumexp(0)))(x), a=_two(d)),
    func_call=lambda d, r: Do(
        lambda s, x: functional_call(s.a, {n: p * 0.9 for n, p in s.a.named_parameters()}, (x,)), a=_two(d)
    ),
    maml=lambda d, r: Do(_maml, a=_two(d)),
    ensemble=lambda d, r: Do(_ensemble, m=nn.ModuleList([_two(d) for _ in range(3)])),
    inner_gradient=lambda d, r: Do(_inner_gradient, a=_two(d)),
    inner_gradient_no_graph=lambda d, r: Do(_inner_gradient_no_graph, a=_two(d)),
    inner_backward=lambda d, r: Do(_inner_backward, a=_two(d), k=nn.Linear(d, 1)),
    inner_training=lambda d, r: Do(_inner_training, a=_two(d), k=nn.Linear(d, 1)),
    implicit=lambda d, r: Do(_fixed_point, a=nn.Linear(d, d)),
    no_grad_part=lambda d, r: Do(_no_grad, a=_two(d), b=nn.Linear(d, d)),
    inference_part=lambda d, r: Do(_inference, a=_two(d), b=nn.Linear(d, d)),
    detached=lambda d, r: Do(lambda s, x: s.a(x.detach()) + x, a=_two(d)),
    straight_through=lambda d, r: Do(lambda s, x: x + (x.sign() - x).detach()),
    reversal=lambda d, r: Do(lambda s, x: x + s.a(Twice.apply(x, -1.0)), a=_two(d)),
    tensor_hook=lambda d, r: Do(_tensor_hook, a=_two(d)),
    clipping_hook=lambda d, r: Do(_clipping_hook, a=_two(d)),
    node_hook=lambda d, r: Do(_node_hook, a=_two(d)),
    retained=lambda d, r: Do(_retain, a=_two(d)),
    autocast=lambda d, r: Do(_autocast, a=_two(d)),
    float64_part=lambda d, r: Do(
        lambda s, x: s.a(x.double()).to(x.dtype), a=nn.Linear(d, d, dtype=torch.float64)
    ),
    bfloat16_part=lambda d, r: Do(
        lambda s, x: s.a(x.bfloat16()).float(), a=nn.Linear(d, d, dtype=torch.bfloat16)
    ),
    float16_part=lambda d, r: Do(lambda s, x: s.a(x.half()).float(), a=nn.Linear(d, d, dtype=torch.float16)),
    compiled=lambda d, r: Do(lambda s, x: s.f(s.a(x)), a=_two(d), f=torch.compile(_plus, backend="eager")),
    saved_hooks=lambda d, r: Do(_saved_hooks, a=_two(d)),
    forward_mode=lambda d, r: Do(_forward_mode, a=_two(d)),
    multi_grad_hook=lambda d, r: Do(_multi_hook, a=_two(d)),
    grad_of_sum=lambda d, r: Do(_penalised_norm, a=_two(d)),
    unused_branch=lambda d, r: Do(_unused, a=_two(d), b=_two(d)),
    conditional=lambda d, r: Do(
        lambda s, x: s.a(x) if x.mean() > 0 else s.b(x), a=_two(d), b=nn.Linear(d, d)
    ),
    while_loop=lambda d, r: Do(_while, a=nn.Linear(d, d)),
    generator_forward=lambda d, r: Do(_steps, a=nn.ModuleList([_two(d) for _ in range(3)])),
    caught=lambda d, r: Do(_catch, a=_two(d)),
    partial=lambda d, r: Do(
        lambda s, x: functools.partial(F.linear, weight=s.w)(x), w=nn.Parameter(torch.eye(d))
    ),
)
register(
    "seq",
    attention_gradient=lambda d, r: Do(_attention_gradient, p=nn.Linear(d, d), dropout=r.choice([0.0, 0.1])),
    encoder_gradient=lambda d, r: Do(
        _encoder_gradient, m=nn.TransformerEncoderLayer(d, 2, 2 * d, dropout=0.1, batch_first=True)
    ),
    vmapped_sequence=lambda d, r: Do(lambda s, x: vmap(vmap(s.a))(x), a=_two(d)),
    nested_strided=lambda d, r: Do(_strided, a=nn.Linear(d, d)),
    nested_jagged=lambda d, r: Do(_jagged, a=nn.Linear(d, d)),
    jagged_attention=lambda d, r: Do(_jagged_attention, p=nn.ModuleList([nn.Linear(d, d) for _ in range(3)])),
    ragged_padding=lambda d, r: Do(
        lambda s, x: nn.utils.rnn.pad_sequence([s.a(row) for row in x], batch_first=True), a=nn.Linear(d, d)
    ),
)


def _plus(x):
    return x.sin() + x


def _vjp(s, x):
    y, back = vjp(s.a, x)
    return y + back(torch.ones_like(y))[0]


def _maml(s, x):
    weights = dict(s.a.named_parameters())

    def inner(w):
        return functional_call(s.a, w, (x,)).pow(2).mean()

    slopes = grad(inner)(weights)
    return functional_call(s.a, {n: p - 0.1 * slopes[n] for n, p in weights.items()}, (x,))


def _ensemble(s, x):
    parameters, buffers = stack_module_state(list(s.m))
    parameters = {n: torch.stack([dict(m.named_parameters())[n] for m in s.m]) for n in parameters}
    return vmap(lambda p, b: functional_call(s.m[0], (p, b), (x,)))(parameters, buffers).mean(0)


def _inner_gradient(s, x):
    z = x if x.requires_grad else x.detach().requires_grad_()
    (g,) = torch.autograd.grad(s.a(z).pow(2).sum(), z, create_graph=True)
    return x - 0.1 * g


def _inner_gradient_no_graph(s, x):
    z = x.detach().requires_grad_()
    return s.a(x) + torch.autograd.grad(s.a(z).sum(), z)[0]


def _inner_backward(s, x):
    s.k(x.detach()).sum().backward()
    return s.a(x)


def _inner_training(s, x):
    loss = s.k(x.detach()).pow(2).mean()
    for p, g in zip(s.k.parameters(), torch.autograd.grad(loss, list(s.k.parameters())), strict=True):
        p.data.sub_(0.01 * g)
    return s.a(x)


def _fixed_point(s, x):
    with torch.no_grad():
        z = x
        for _ in range(4):
            z = (s.a(z) * 0.1 + x).tanh()
    z = z.detach().requires_grad_()
    return (s.a(z) * 0.1 + x).tanh()


def _no_grad(s, x):
    with torch.no_grad():
        y = s.b(x)
    return s.a(x + y)


def _inference(s, x):
    with torch.inference_mode():
        y = s.b(x)
    return s.a(x + y.clone())


def _tensor_hook(s, x):
    y = s.a(x)
    if y.requires_grad:
        y.register_hook(lambda g: g * 0.5)
    return y


def _clipping_hook(s, x):
    y = s.a(x)
    if y.requires_grad:
        y.register_hook(lambda g: g.clamp(-1e-3, 1e-3))
    return y


def _node_hook(s, x):
    y = s.a(x)
    if y.grad_fn is not None:
        y.grad_fn.register_hook(lambda inputs, outputs: None)
        y.grad_fn.register_prehook(lambda outputs: tuple(g * 2 for g in outputs))
    return y


def _retain(s, x):
    y = s.a(x)
    if y.requires_grad:
        y.retain_grad()
    return y


def _autocast(s, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = s.a(x)
    return y.to(x.dtype)


def _saved_hooks(s, x):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        return s.a(x)


def _forward_mode(s, x):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        slope = torch.autograd.forward_ad.unpack_dual(dual.sin()).tangent
    return s.a(x) + slope


def _multi_hook(s, x):
    y = s.a(x)
    if y.requires_grad:
        torch.autograd.graph.register_multi_grad_hook([y], lambda grads: None)
    return y


def _penalised_norm(s, x):
    y = s.a(x)
    slopes = torch.autograd.grad(y.sum(), list(s.a.parameters()), create_graph=True)
    return y + sum(g.pow(2).sum() for g in slopes)


def _unused(s, x):
    s.b(x)
    return s.a(x)


def _while(s, x):
    count = 0
    while x.norm() > 1 and count < 6:
        x, count = s.a(x).tanh(), count + 1
    return x + s.a(x)


def _steps(s, x):
    def run():
        h = x
        for m in s.a:
            h = m(h)
            yield h

    return sum(run())


def _catch(s, x):
    try:
        return s.a(x[:, :-1])
    except RuntimeError:
        return s.a(x)


def _attention_gradient(s, x):
    z = x if x.requires_grad else x.detach().requires_grad_()
    q = s.p(z)
    y = F.scaled_dot_product_attention(q, z, z, dropout_p=s.dropout)
    (g,) = torch.autograd.grad(y.sum(), z, create_graph=True)
    return x + g


def _encoder_gradient(s, x):
    z = x if x.requires_grad else x.detach().requires_grad_()
    (g,) = torch.autograd.grad(s.m(z).sum(), z, create_graph=True)
    return x + g


def _strided(s, x):
    nested = torch.nested.as_nested_tensor([row[: i % x.shape[1] + 1] for i, row in enumerate(x)])
    return torch.nested.to_padded_tensor(s.a(nested), 0.0, (len(x), x.shape[1], x.shape[2]))


def _jagged(s, x):
    nested = torch.nested.as_nested_tensor(
        [row[: i % x.shape[1] + 1] for i, row in enumerate(x)], layout=torch.jagged
    )
    return torch.nested.to_padded_tensor(s.a(nested).tanh(), 0.0, (len(x), x.shape[1], x.shape[2]))


def _jagged_attention(s, x):
    nested = torch.nested.as_nested_tensor(
        [row[: i % x.shape[1] + 1] for i, row in enumerate(x)], layout=torch.jagged
    )
    q, k, v = (p(nested).unflatten(-1, (2, -1)).transpose(1, 2) for p in s.p)
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
    return torch.nested.to_padded_tensor(y, 0.0, (len(x), x.shape[1], x.shape[2]))
