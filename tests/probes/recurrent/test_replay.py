"""The replay against torch: fused layers for the function, cell loops under autograd for the gradients."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from unvanish.core.depth import theil_sen
from unvanish.probes.recurrent import unroll
from unvanish.probes.recurrent.cells import cell
from unvanish.probes.recurrent.exponents import lyapunov
from unvanish.probes.recurrent.profile import Profile
from unvanish.probes.recurrent.replay import replay, replay_output, sweep

KINDS: dict[str, Callable[..., nn.RNNBase]] = {
    "tanh": nn.RNN,
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
    "lstm": nn.LSTM,
    "lstm-proj": lambda *sizes, **options: nn.LSTM(*sizes, proj_size=3, **options),
    "gru": nn.GRU,
}
FORMS = ("time first", "batch first", "unbatched", "packed", "packed unsorted")
LENGTHS = {"packed": [6, 4, 4, 1], "packed unsorted": [2, 6, 1, 5], "unbatched": [6]}


class Problem:
    """A float64 layer, its arguments and a random cotangent of everything it returns."""

    def __init__(
        self, kind: str, form: str = "time first", *, seed: int = 0, lengths: Any = None, **options: Any
    ) -> None:
        torch.manual_seed(seed)
        self.form, self.lengths = form, lengths or LENGTHS.get(form, [6, 6, 6, 6])
        self.module = KINDS[kind](4, 5, batch_first=form == "batch first", **options).double()
        self.dense = torch.randn(max(self.lengths), len(self.lengths), 4, dtype=torch.float64)  # (T, B, D)
        outputs = (1 + self.module.bidirectional) * (self.module.proj_size or 5)
        self.grad = torch.randn(max(self.lengths), len(self.lengths), outputs, dtype=torch.float64)
        layers = self.module.num_layers * (1 + self.module.bidirectional)
        sizes = (self.module.proj_size or 5, 5)[: 2 if self.module.mode == "LSTM" else 1]
        self.hx = [torch.randn(layers, len(self.lengths), n, dtype=torch.float64) for n in sizes]
        self.grad_hx = [torch.randn_like(h) for h in self.hx]

    def lay(self, x: Tensor) -> Any:
        """A (T, B, D) tensor in the form of this problem."""
        if self.form == "batch first":
            return x.transpose(0, 1)
        if self.form == "unbatched":
            return x[:, 0]
        if self.form.startswith("packed"):
            return pack_padded_sequence(x, torch.tensor(self.lengths), enforce_sorted=self.form == "packed")
        return x

    def state(self, parts: list[Tensor]) -> Any:
        parts = [p[:, 0] for p in parts] if self.form == "unbatched" else parts
        return tuple(parts) if len(parts) > 1 else parts[0]

    @property
    def inputs(self) -> tuple[Any, Any]:
        return self.lay(self.dense), self.state(self.hx)

    def replay(self, **options: Any) -> list[Profile]:
        return replay(self.module, self.inputs, self.lay(self.grad), self.state(self.grad_hx), **options)


def flat(result: Any) -> list[Tensor]:
    """The tensors of what a recurrent layer returns."""
    if isinstance(result, PackedSequence):
        return [result.data]
    if isinstance(result, tuple):
        return [tensor for part in result for tensor in flat(part)]
    return [result]


def rows(x: Any, form: str) -> Tensor:
    x = x.data if isinstance(x, PackedSequence) else x
    return (x.transpose(0, 1) if form == "batch first" else x).reshape(-1, x.shape[-1])


def assert_same_function(problem: Problem) -> None:
    ours, theirs = replay_output(problem.module, problem.inputs), problem.module(*problem.inputs)
    assert type(ours[0]) is type(theirs[0]) and type(ours[1]) is type(theirs[1])
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        assert not a.requires_grad
        torch.testing.assert_close(a, b.detach(), rtol=0, atol=1e-12)
    if isinstance(theirs[0], PackedSequence):
        assert ours[0].batch_sizes.equal(theirs[0].batch_sizes)


def assert_same_input_gradient(problem: Problem) -> None:
    x, hx = problem.inputs
    leaf = (x.data if isinstance(x, PackedSequence) else x).detach().clone().requires_grad_()
    result = problem.module(x._replace(data=leaf) if isinstance(x, PackedSequence) else leaf, hx)
    cotangents = [*flat(problem.lay(problem.grad)), *flat(problem.state(problem.grad_hx))]
    torch.autograd.backward(flat(result), cotangents)
    _, found = sweep(problem.module, (x, hx), problem.lay(problem.grad), problem.state(problem.grad_hx))
    ours = found.value * torch.exp2(found.exponent)[:, None]
    torch.testing.assert_close(ours, rows(leaf.grad, problem.form), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("kind", "layers", "bidirectional", "bias", "form"),
    list(product(KINDS, (1, 2), (False, True), (False, True), FORMS)),
)
def test_output_and_input_gradient_equal_the_fused_layer(
    kind: str, layers: int, bidirectional: bool, bias: bool, form: str
) -> None:
    problem = Problem(kind, form, num_layers=layers, bidirectional=bidirectional, bias=bias)
    assert_same_function(problem)
    assert_same_input_gradient(problem)


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    form=st.sampled_from(FORMS),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_shape(
    kind: str, form: str, lengths: list[int], layers: int, bidirectional: bool, seed: int
) -> None:
    lengths = {
        "packed": sorted(lengths, reverse=True),
        "packed unsorted": lengths,
        "unbatched": lengths[:1],
    }.get(form, [lengths[0]] * len(lengths))
    problem = Problem(kind, form, seed=seed, lengths=lengths, num_layers=layers, bidirectional=bidirectional)
    assert_same_function(problem)
    assert_same_input_gradient(problem)
    for profile in problem.replay():
        assert profile.state_log.shape == profile.carry_log.shape == (max(lengths),)
        assert profile.carry_log[-1] == 0 and not np.isnan(profile.carry_log).any()
        assert profile.step_gain.shape == (max(lengths) - 1,)


def cell_loop(module: nn.RNNBase, layer: int, reverse: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """One step (x, s) -> s' by torch's own cells; a projection enters as part of the cell's input."""
    suffix = f"_l{layer}{'_reverse' if reverse else ''}"
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_in, w_rec, b_in, b_rec = (getattr(module, name + suffix) for name in names)
    cells = {"RNN_TANH": torch.rnn_tanh_cell, "RNN_RELU": torch.rnn_relu_cell, "GRU": torch.gru_cell}
    if module.mode != "LSTM":
        return lambda x, s: cells[module.mode](x[None], s[None], w_in, w_rec, b_in, b_rec)[0]
    both, none = torch.cat([w_in, w_rec], 1), torch.zeros(4 * module.hidden_size, module.hidden_size).double()

    def step(x: Tensor, s: Tensor) -> Tensor:
        h, c = s.tensor_split([w_rec.shape[1]])
        state = (torch.zeros_like(c)[None], c[None])
        h, c = torch.lstm_cell(torch.cat([x, h])[None], state, both, none, b_in, b_rec)
        return torch.cat([h[0] @ getattr(module, "weight_hr" + suffix).T if module.proj_size else h[0], c[0]])

    return step


def oracle(problem: Problem) -> list[np.ndarray]:
    """ln ||dL/ds_t|| of every run: each sequence alone in one autograd graph, gradients kept."""
    module, steps = problem.module, max(problem.lengths)
    directions = (False, True) if module.bidirectional else (False,)
    out = module.proj_size or module.hidden_size
    power = np.zeros((module.num_layers * len(directions), steps))
    for b, length in enumerate(problem.lengths):
        x, loss = list(problem.dense[:length, b]), torch.zeros(()).double()
        states: dict[tuple[int, int], Tensor] = {}
        for layer in range(module.num_layers):
            sides = []
            for reverse in directions:
                run, step = layer * len(directions) + reverse, cell_loop(module, layer, reverse)
                s, side = torch.cat([h[run, b] for h in problem.hx]), {}
                for t in reversed(range(length)) if reverse else range(length):
                    s = step(x[t], s)
                    s.retain_grad()
                    side[t] = s[:out]
                    states[run, steps - 1 - t if reverse else t] = s
                loss = loss + s @ torch.cat([g[run, b] for g in problem.grad_hx])
                sides.append(side)
            x = [torch.cat([side[t] for side in sides]) for t in range(length)]
        (loss + sum(y @ g for y, g in zip(x, problem.grad[:length, b], strict=True))).backward()
        for key, s in states.items():
            power[key] += float(s.grad.square().sum())
    return list(np.log(power) / 2)


@pytest.mark.parametrize(("kind", "form"), list(product(KINDS, ("time first", "packed unsorted"))))
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (3, False), (2, True)])
def test_state_gradients_equal_autograd_on_a_cell_loop(
    kind: str, form: str, layers: int, bidirectional: bool
) -> None:
    problem = Problem(kind, form, num_layers=layers, bidirectional=bidirectional)
    profiles = problem.replay()
    names = [(p.layer, p.reverse) for p in profiles]
    assert names == [(i, r) for i in range(layers) for r in (False, True)[: 1 + bidirectional]]
    for profile, expected in zip(profiles, oracle(problem), strict=True):
        np.testing.assert_allclose(profile.state_log, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_jacobians_equal_autograd_and_are_adjoint(kind: str) -> None:
    problem = Problem(kind)
    one = cell(problem.module, 0, False, torch.device("cpu"))
    state = torch.randn(3, one.size, dtype=torch.float64)
    tape = one.drive(problem.dense[0, :3])
    after = tape.new_empty(3, one.size)
    one.step(tape, state, after)
    factors = one.factors(tape, state, after)
    u, v = torch.randn(2, 7, 3, one.size, dtype=torch.float64)
    torch.testing.assert_close((u * one.push(factors, v)).sum((1, 2)), (one.pull(factors, u) * v).sum((1, 2)))
    step = cell_loop(problem.module, 0, False)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(lambda s, i=i: step(problem.dense[0, i], s), state[i])
        eye = torch.eye(one.size, dtype=torch.float64)
        torch.testing.assert_close(one.push(factors[[i]], eye[:, None])[:, 0], jacobian.T)


@pytest.mark.parametrize("kind", KINDS)
def test_carry_is_the_norm_of_the_jacobian_product(kind: str) -> None:
    problem = Problem(kind, "unbatched", lengths=[4])
    step, s = cell_loop(problem.module, 0, False), torch.cat([h[0, 0] for h in problem.hx])
    jacobians = []
    for x in problem.dense[:, 0]:
        jacobians.append(torch.autograd.functional.jacobian(lambda s, x=x: step(x, s), s))
        s = step(x, s).detach()
    gain, expected = torch.eye(len(s), dtype=torch.float64), [0.0]
    for jacobian in reversed(jacobians[1:]):
        gain = gain @ jacobian
        expected.insert(0, math.log(float(gain.norm()) / math.sqrt(len(s))))
    carry = problem.replay(probes=4000)[0].carry_log
    np.testing.assert_allclose(carry, expected, atol=0.05)


def orthogonal_rnn(gain: float, layers: int = 1, **options: Any) -> nn.RNN:
    """At zero input its state is 0 and its Jacobian exactly gain times an orthogonal matrix."""
    torch.manual_seed(0)
    module = nn.RNN(3, 8, num_layers=layers, bias=False, **options)
    for name, weight in module.named_parameters():
        nn.init.orthogonal_(weight)
        with torch.no_grad():
            weight.mul_(gain if "hh" in name else 1)
    return module


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_neither_underflow_nor_overflow_over_3000_steps(gain: float) -> None:
    module, steps = orthogonal_rnn(gain, layers=2), 3000
    grad = torch.zeros(steps, 2, 8)
    grad[-1] = torch.randn(2, 8)
    lower, upper = replay(module, (torch.zeros(steps, 2, 3),), grad, None)
    line = math.log(gain) * np.arange(steps)[::-1]
    np.testing.assert_allclose(upper.carry_log, line, atol=2e-3)  # the weights are float32
    np.testing.assert_allclose(upper.state_log, line + math.log(float(grad.norm())), atol=2e-3)
    np.testing.assert_allclose(lower.carry_log, line, atol=2e-3)
    # k steps back there are k+1 paths of equal gain, one for every step at which to go down a layer
    paths = lower.state_log - line - math.log(float(grad.norm()))
    assert (np.abs(paths) < math.log(steps)).all()
    assert theil_sen(upper.state_log) == pytest.approx(-math.log(gain), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "layers", "bidirectional", "form"), list(product(KINDS, (1, 2), (False, True), FORMS))
)
def test_along_the_modules_own_output_it_is_the_same(
    kind: str, layers: int, bidirectional: bool, form: str
) -> None:
    problem = Problem(kind, form, num_layers=layers, bidirectional=bidirectional)
    result = problem.module(*problem.inputs)[0]
    for own, plain in zip(problem.replay(result=result), problem.replay(), strict=True):
        np.testing.assert_allclose(own.state_log, plain.state_log, atol=1e-10)
        np.testing.assert_allclose(own.carry_log, plain.carry_log, atol=1e-10)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_in_chaos_it_follows_the_states_that_the_module_went_through(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    module, steps = kind(3, 64), 120
    with torch.no_grad():
        for weight in (module.weight_hh_l0, module.weight_ih_l0):
            weight.mul_(12)
    x = torch.randn(steps, 2, 3, requires_grad=True)
    result = module(x)[0]
    grad = torch.zeros_like(result)
    grad[-1] = 1
    result.backward(grad)
    far = slice(0, 20)  # where rounding has grown to the size of the state
    assert x.grad is not None

    def error(result: Tensor | None) -> float:
        found = sweep(module, (x,), grad, None, result=result)[1]
        logs = (found.value.norm(dim=-1).log() + found.exponent * math.log(2)).reshape(steps, 2)
        return float((logs - x.grad.double().norm(dim=-1).log())[far].abs().mean())  # type: ignore[union-attr]

    assert error(result) < 0.02
    assert error(None) > 0.1


def test_an_output_that_tells_nothing_is_not_followed() -> None:
    problem = Problem("lstm", num_layers=2, dropout=0.5)
    plain = problem.replay()[1]
    dropped = problem.module.train()(*problem.inputs)[0]
    np.testing.assert_array_equal(problem.replay(result=dropped)[1].state_log, plain.state_log)
    broken = torch.full_like(dropped, math.inf)
    found, plain = (Problem("gru").replay(result=result)[0] for result in (broken, None))
    np.testing.assert_array_equal(found.state_log, plain.state_log)


def test_sequences_of_unequal_length_are_aligned_at_their_ends() -> None:
    lengths = torch.tensor([900, 5, 2500])
    packed = pack_padded_sequence(torch.zeros(2500, 3, 3), lengths, enforce_sorted=False)
    for profile in replay(orthogonal_rnn(0.5, bidirectional=True), (packed,), None, torch.ones(2, 3, 8)):
        np.testing.assert_allclose(profile.carry_log, math.log(0.5) * np.arange(2500)[::-1], atol=2e-3)
        if not profile.reverse:
            assert profile.state_log[4] == pytest.approx(math.log(math.sqrt(8)))  # where the short one ends


def test_the_scale_of_the_loss_shifts_the_logs_exactly() -> None:
    problem = Problem("lstm", num_layers=2, bidirectional=True)
    plain = replay(problem.module, problem.inputs, problem.grad, None)
    small = replay(problem.module, problem.inputs, problem.grad * 1e-300, None)
    for a, b in zip(plain, small, strict=True):
        np.testing.assert_allclose(b.state_log, a.state_log + math.log(1e-300), rtol=1e-13)
        np.testing.assert_array_equal(b.carry_log, a.carry_log)


def test_exact_zero_and_not_finite() -> None:
    problem = Problem("gru")
    only_third = torch.zeros_like(problem.grad)
    only_third[2] = 1
    state = replay(problem.module, problem.inputs, only_third, None)[0].state_log
    assert np.isneginf(state[3:]).all() and np.isfinite(state[:3]).all()
    assert np.isneginf(replay(problem.module, problem.inputs, None, None)[0].state_log).all()
    problem.dense[1, 0, 0] = math.nan
    sick = problem.replay()[0]
    assert np.isnan(sick.state_log[:2]).all() and math.isnan(lyapunov(problem.module, problem.inputs))
    dead = Problem("relu")
    nn.init.constant_(dead.module.bias_ih_l0, -1e3)
    profile = dead.replay()[0]
    assert np.isneginf(profile.carry_log[:-1]).all() and lyapunov(dead.module, dead.inputs) == -math.inf
    assert np.isnan(profile.step_gain[:-1]).all() and profile.step_gain[-1] == 0


def test_optional_parts_and_other_dtypes() -> None:
    problem = Problem("lstm")
    x = problem.dense
    h, c = problem.grad_hx
    whole = replay(problem.module, (x, None), problem.grad, (h, torch.zeros_like(c)))[0]
    part = replay(problem.module, (x,), problem.grad, (h, None))[0]
    np.testing.assert_array_equal(whole.state_log, part.state_log)
    packed = Problem("gru", "packed")
    by_data = replay(packed.module, packed.inputs, packed.lay(packed.grad).data, None)[0]
    by_pack = replay(packed.module, packed.inputs, packed.lay(packed.grad), None)[0]
    np.testing.assert_array_equal(by_data.state_log, by_pack.state_log)
    half = replay(copy.deepcopy(problem.module).bfloat16(), (x.bfloat16(),), problem.grad.bfloat16(), None)[0]
    plain = replay(problem.module, (x,), problem.grad, None)[0]
    np.testing.assert_allclose(half.state_log, plain.state_log, atol=0.1)


def test_dropout_counts_as_off_and_computed_weights_are_read() -> None:
    module = nn.LSTM(4, 5, num_layers=2, dropout=0.5).double()
    nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    x = torch.randn(6, 2, 4, dtype=torch.float64)
    ours = replay_output(module.train(), (x,))
    torch.testing.assert_close(ours[0], module.eval()(x)[0].detach(), rtol=0, atol=1e-12)


def test_nothing_is_left_behind() -> None:
    problem = Problem("lstm", "packed unsorted", num_layers=2, bidirectional=True)
    module, before = problem.module, copy.deepcopy(problem.module.state_dict())
    dense, hooks, rng = problem.dense.clone(), len(module._forward_hooks), torch.get_rng_state()
    arguments = (module, problem.inputs, problem.lay(problem.grad), None)
    with torch.device("meta"):
        first = replay(*arguments, seed=3)
    again = replay(*arguments, seed=3)
    lyapunov(module, problem.inputs)
    assert torch.equal(torch.get_rng_state(), rng) and torch.is_grad_enabled()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert torch.equal(problem.dense, dense) and len(module._forward_hooks) == hooks and module.training
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.carry_log, b.carry_log)


def test_wrong_calls_are_refused() -> None:
    problem = Problem("lstm")
    x = problem.dense
    with pytest.raises(TypeError, match="not Linear"):
        replay(nn.Linear(2, 2), (x,), None, None)
    with pytest.raises(ValueError, match="grad_output"):
        replay(problem.module, (x,), problem.grad[:3], None)
    with pytest.raises(ValueError, match="state has shape"):
        replay(problem.module, (x,), None, (torch.zeros(1, 3, 5), None))
    with pytest.raises(ValueError, match="result has"):
        replay(problem.module, (x,), None, None, result=problem.grad[:3])
    with pytest.raises(ValueError, match="probes"):
        replay(problem.module, (x,), None, None, probes=0)
    with pytest.raises(ValueError, match="2 or 3 dimensions"):
        replay_output(problem.module, (x[0, 0],))
    with pytest.raises(ValueError, match="exponents"):
        lyapunov(problem.module, (x,), exponents=11)


def test_all_exponents_together_are_the_log_determinant() -> None:
    problem = Problem("gru", "unbatched", lengths=[30])
    step, s, total = cell_loop(problem.module, 0, False), problem.hx[0][0, 0], 0.0
    for x in problem.dense[:, 0]:
        total += float(torch.autograd.functional.jacobian(lambda s, x=x: step(x, s), s).slogdet().logabsdet)
        s = step(x, s).detach()
    assert lyapunov(problem.module, problem.inputs, exponents=5) == pytest.approx(total / 30 / 5)
    assert lyapunov(orthogonal_rnn(0.5), (torch.zeros(50, 2, 3),)) == pytest.approx(math.log(0.5), abs=1e-5)


def test_speed() -> None:
    module, x = nn.LSTM(128, 128), torch.randn(400, 16, 128)
    start = time.perf_counter()
    replay(module, (x,), torch.randn(400, 16, 128), None)
    assert time.perf_counter() - start < 10  # about 1 s on one core; the slack is for a busy machine


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_factors_made_in_one_go_are_those_made_step_by_step(
    kind: type[nn.RNNBase], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module, x = kind(5, 7, 2, bidirectional=True), torch.randn(9, 3, 5)
    given = (module, (x,), torch.randn(9, 3, 14), None)
    whole = replay(*given)
    monkeypatch.setattr(unroll, "AT_ONCE", 0)
    for one, other in zip(whole, replay(*given), strict=True):
        np.testing.assert_allclose(one.state_log, other.state_log, rtol=1e-12)
        np.testing.assert_allclose(one.carry_log, other.carry_log, rtol=1e-12, atol=1e-12)
