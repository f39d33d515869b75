"""The recurrent cells of PyTorch as state maps s -> F(s, x), with their Jacobians in both directions.

Notable:
- The state is h, shape (b, H); for an LSTM h and c side by side, (b, P + H), P the projection's size or H.
- A Jacobian is kept as a few numbers per unit (`factors`), computed for all steps at once. The same factors
  serve `pull` (J^T d, gradients going back) and `push` (J v, perturbations going forward): they are adjoint.
- Gates come in PyTorch's order (LSTM i f g o, GRU r z n), so the weights are used as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cell(ABC):
    """One direction of one layer: weights (G*H, inputs) and (G*H, outputs), biases (G*H,), all float64."""

    w_in: Tensor
    w_rec: Tensor
    b_in: Tensor
    b_rec: Tensor

    @cached_property
    def w_back(self) -> Tensor:
        """`w_rec` in columns, as a product with it on the right is fastest."""
        return self.w_rec.T.contiguous().T

    @property
    def out(self) -> int:
        """Size of h, the part of the state that leaves the layer."""
        return self.w_rec.shape[1]

    @property
    def size(self) -> int:
        """Size of the state."""
        return self.out

    @property
    @abstractmethod
    def tape(self) -> int:
        """How many numbers a step keeps for `factors`, G*H or more."""

    @property
    def bias(self) -> Tensor:
        """The gates' bias that does not depend on the state, (G*H,)."""
        return self.b_in + self.b_rec

    def drive(self, x: Tensor) -> Tensor:
        """A tape (N, tape) whose first G*H columns hold the inputs' part and the biases of the gates."""
        made = x.new_empty(len(x), self.tape)
        torch.addmm(self.bias, x, self.w_in.T, out=made[:, : len(self.bias)])
        return made

    @abstractmethod
    def step(self, tape: Tensor, state: Tensor, after: Tensor) -> None:
        """Write the next state (b, size); the tape (b, tape) holds the drive before, and the gates after."""

    def steps(
        self, tape: Tensor, before: Tensor, start: Tensor, after: Tensor, spans: Iterable[tuple[int, slice]]
    ) -> None:
        """`step` for all N rows at once, given the h before each, (N, out); `start` is (B, size)."""
        self.step(tape, before, after)

    @abstractmethod
    def factors(self, tape: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """The Jacobians of N steps, (N, F), from their tape and the states around them."""

    def pull(self, factors: Tensor, d: Tensor) -> Tensor:
        """J^T d: cotangents (..., b, size) carried one step back."""
        carried = torch.empty_like(d, memory_format=torch.contiguous_format)
        self.pull_into(factors, d, carried)
        return carried

    @abstractmethod
    def pull_into(self, factors: Tensor, d: Tensor, carried: Tensor) -> None:
        """Write J^T d into a contiguous tensor of the same shape as d."""

    def pull_steps(self, factors: Tensor, entering: Tensor, kept: Tensor, whole: bool) -> None:
        """`pull` through K steps: d[t] = J[t]^T d[t + 1], after adding what enters to d[t + 1].

        factors (K, b, F), entering (K, b, out), into the first of the S cotangents; d is `kept`,
        (K + 1, S, b, size), given at K. d[0] is computed if `whole`.
        """
        arriving = kept[1:, 0, :, : self.out].unbind()
        for t in reversed(range(len(factors))):
            arriving[t].add_(entering[t])
            if t or whole:
                self.pull_into(factors[t], kept[t + 1], kept[t])

    @abstractmethod
    def push(self, factors: Tensor, v: Tensor) -> Tensor:
        """J v: a tangent (..., b, size) carried one step forward."""

    @abstractmethod
    def pull_input(self, factors: Tensor, d: Tensor) -> Tensor:
        """The cotangent of the input, (N, inputs), from that of the state after the step, (N, size)."""


@final
@dataclass(frozen=True, eq=False)
class Vanilla(Cell):
    """h' = phi(W x + U h + b) with phi = tanh or ReLU (Elman 1990)."""

    relu: bool

    @property
    def tape(self) -> int:
        """The drive; the slope follows from the state."""
        return self.out

    def step(self, tape: Tensor, state: Tensor, after: Tensor) -> None:
        torch.addmm(tape, state, self.w_rec.T, out=after)
        after.relu_() if self.relu else after.tanh_()

    def factors(self, tape: Tensor, before: Tensor, after: Tensor) -> Tensor:
        return (after > 0).to(after.dtype) if self.relu else 1 - after.square()

    def pull_into(self, factors: Tensor, d: Tensor, carried: Tensor) -> None:
        torch.matmul(d * factors, self.w_back, out=carried)

    def push(self, factors: Tensor, v: Tensor) -> Tensor:
        return (v @ self.w_rec.T) * factors

    def pull_input(self, factors: Tensor, d: Tensor) -> Tensor:
        return (d * factors) @ self.w_in


@final
@dataclass(frozen=True, eq=False)
class Lstm(Cell):
    """c' = f c + i g, h' = o tanh(c'), projected by w_out (P, H) if given (Hochreiter 1997; Sak 2014)."""

    w_out: Tensor | None

    @property
    def hidden(self) -> int:
        """Size of c."""
        return self.w_rec.shape[0] // 4

    @property
    def size(self) -> int:
        """Size of h and c together."""
        return self.out + self.hidden

    @property
    def tape(self) -> int:
        """The four gates, and tanh of the cell."""
        return 5 * self.hidden

    def step(self, tape: Tensor, state: Tensor, after: Tensor) -> None:
        i, f, g = self._gates(tape, state[:, : self.out])
        c = after[:, self.out :]
        torch.mul(f, state[:, self.out :], out=c)
        c.addcmul_(i, g)
        self._leave(tape, after)

    def steps(
        self, tape: Tensor, before: Tensor, start: Tensor, after: Tensor, spans: Iterable[tuple[int, slice]]
    ) -> None:
        i, f, g = self._gates(tape, before)
        c, first = after[:, self.out :], start[:, self.out :]
        torch.mul(i, g, out=c)
        past = first
        for b, rows in spans:
            now = c[rows].addcmul_(f[rows], past[:b])
            past = now if b == len(first) else torch.cat([now, first[b:]])
        self._leave(tape, after)

    def _gates(self, tape: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn the drive into gates, in place; returns i, f and g."""
        gates = tape[:, : 4 * self.hidden]
        i, f, g, _ = gates.chunk(4, -1)
        gates.addmm_(h, self.w_rec.T)
        new = g.tanh()
        gates.sigmoid_()
        g.copy_(new)
        return i, f, g

    def _leave(self, tape: Tensor, after: Tensor) -> None:
        """Write h, and tanh of the cell, from the gates and the cell."""
        o, squashed = tape[:, 3 * self.hidden :].chunk(2, -1)
        h, c = after.split_with_sizes([self.out, self.hidden], -1)
        torch.tanh(c, out=squashed)
        if self.w_out is None:
            torch.mul(o, squashed, out=h)
        else:
            torch.mm(o * squashed, self.w_out.T, out=h)

    def factors(self, tape: Tensor, before: Tensor, after: Tensor) -> Tensor:
        i, f, g, o, squashed = tape.chunk(5, -1)
        found = tape.new_empty(len(tape), 6 * self.hidden)
        k_i, k_f, k_g, by_output, by_cell, keep = found.chunk(6, -1)
        keep.copy_(f)
        for value, gate, slot in ((g, i, k_i), (before[:, self.out :], f, k_f), (squashed, o, by_output)):
            torch.addcmul(value, value, gate, value=-1, out=slot).mul_(gate)  # value * gate * (1 - gate)
        for gate, value, slot in ((i, g, k_g), (o, squashed, by_cell)):
            torch.addcmul(gate, gate * value, value, value=-1, out=slot)  # gate * (1 - value**2)
        return found

    def _back(self, factors: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
        """Cotangents of the gates (..., b, 4H) and of the cell (..., b, H)."""
        dh, dc = d.split_with_sizes([self.out, self.hidden], -1)
        dh = dh if self.w_out is None else dh @ self.w_out
        dc = torch.addcmul(dc, dh, factors[..., 4 * self.hidden : 5 * self.hidden])
        gates = d.new_empty(*d.shape[:-1], 4, self.hidden)
        to_cell = factors[..., : 3 * self.hidden].reshape(*factors.shape[:-1], 3, self.hidden)
        torch.mul(dc.unsqueeze(-2), to_cell, out=gates[..., :3, :])
        torch.mul(dh, factors[..., 3 * self.hidden : 4 * self.hidden], out=gates[..., 3, :])
        return gates.flatten(-2), dc

    def pull_into(self, factors: Tensor, d: Tensor, carried: Tensor) -> None:
        gates, dc = self._back(factors, d)
        rows = carried.view(-1, self.size)
        torch.mm(gates.flatten(0, -2), self.w_back, out=rows[:, : self.out])
        torch.mul(dc, factors[..., 5 * self.hidden :], out=carried[..., self.out :])

    def pull_steps(self, factors: Tensor, entering: Tensor, kept: Tensor, whole: bool) -> None:
        if self.w_out is not None:
            return super().pull_steps(factors, entering, kept, whole)
        # the views of all steps first: in a small network they cost more than the sums
        each = factors.view(*factors.shape[:-1], 6, self.hidden)
        to_cell = each[:, :, :3].unbind()
        by_output, by_cell, keep = (each[:, :, k].unbind() for k in (3, 4, 5))
        h, c = (part.unbind() for part in kept.split_with_sizes([self.out, self.hidden], -1))
        rows = kept.flatten(1, 2)[..., : self.out].unbind()
        arriving = kept[1:, 0, :, : self.out].unbind()
        gates, dc = kept.new_empty(*kept.shape[1:3], 4, self.hidden), torch.empty_like(c[0])
        flat, wide = gates.view(len(rows[0]), -1), dc.unsqueeze(-2)
        inner, outer = gates[..., :3, :], gates[..., 3, :]
        for t in reversed(range(len(factors))):
            arriving[t].add_(entering[t])
            if t or whole:
                torch.addcmul(c[t + 1], h[t + 1], by_cell[t], out=dc)
                torch.mul(wide, to_cell[t], out=inner)
                torch.mul(h[t + 1], by_output[t], out=outer)
                torch.mm(flat, self.w_back, out=rows[t])
                torch.mul(dc, keep[t], out=c[t])
        return None

    def push(self, factors: Tensor, v: Tensor) -> Tensor:
        k_i, k_f, k_g, by_output, by_cell, keep = factors.chunk(6, -1)
        i, f, g, o = (v[..., : self.out] @ self.w_rec.T).chunk(4, -1)
        c = keep * v[..., self.out :] + k_i * i + k_f * f + k_g * g
        h = by_output * o + by_cell * c
        return torch.cat([h if self.w_out is None else h @ self.w_out.T, c], -1)

    def pull_input(self, factors: Tensor, d: Tensor) -> Tensor:
        return self._back(factors, d)[0] @ self.w_in


@final
@dataclass(frozen=True, eq=False)
class Gru(Cell):
    """h' = (1 - z) n + z h, n = tanh(W x + r (U h + b)) (Cho 2014, with the reset after the product)."""

    @property
    def tape(self) -> int:
        """The three gates and the recurrent part of n."""
        return 4 * self.out

    @property
    def bias(self) -> Tensor:
        """The inputs' bias alone: the recurrent bias of n is inside the reset gate."""
        return self.b_in

    def step(self, tape: Tensor, state: Tensor, after: Tensor) -> None:
        recurrent = torch.addmm(self.b_rec, state, self.w_rec.T)
        cut = 2 * self.out
        both, n, q = tape.split_with_sizes([cut, self.out, self.out], -1)
        both.add_(recurrent[:, :cut]).sigmoid_()
        r, z = both.chunk(2, -1)
        q.copy_(recurrent[:, cut:])
        n.addcmul_(r, q).tanh_()
        torch.lerp(n, state, z, out=after)

    def factors(self, tape: Tensor, before: Tensor, after: Tensor) -> Tensor:
        r, z, n, q = tape.chunk(4, -1)
        new = (1 - z) * (1 - n.square())
        return torch.cat([new * q * r * (1 - r), (before - n) * z * (1 - z), new * r, new, z], -1)

    def pull_into(self, factors: Tensor, d: Tensor, carried: Tensor) -> None:
        each = factors.reshape(*factors.shape[:-1], 5, self.out)
        gates = d.unsqueeze(-2) * each[..., :3, :]
        torch.mul(d, each[..., 4, :], out=carried)
        carried.view(-1, self.out).addmm_(gates.view(-1, 3 * self.out), self.w_back)

    def push(self, factors: Tensor, v: Tensor) -> Tensor:
        k_r, k_z, k_q, _, keep = factors.chunk(5, -1)
        r, z, q = (v @ self.w_rec.T).chunk(3, -1)
        return k_r * r + k_z * z + k_q * q + keep * v

    def pull_input(self, factors: Tensor, d: Tensor) -> Tensor:
        k_r, k_z, _, k_n, _ = factors.chunk(5, -1)
        return torch.cat([d * k_r, d * k_z, d * k_n], -1) @ self.w_in


def cell(module: torch.nn.RNNBase, layer: int, reverse: bool, device: torch.device) -> Cell:
    """The cell of one direction of one layer, a float64 copy on `device`; TypeError for an unknown mode."""

    def weight(name: str) -> Tensor:
        parameter: Tensor = getattr(module, f"{name}_l{layer}{'_reverse' if reverse else ''}")
        return parameter.detach().to(device, torch.float64)

    w_in, w_rec = weight("weight_ih"), weight("weight_hh")
    none = w_in.new_zeros(w_in.shape[0])
    biases = (weight("bias_ih"), weight("bias_hh")) if module.bias else (none, none)
    if module.mode == "LSTM":
        return Lstm(w_in, w_rec, *biases, weight("weight_hr") if module.proj_size else None)
    if module.mode == "GRU":
        return Gru(w_in, w_rec, *biases)
    if module.mode in ("RNN_TANH", "RNN_RELU"):
        return Vanilla(w_in, w_rec, *biases, relu=module.mode == "RNN_RELU")
    raise TypeError(f"no step-by-step replay for a recurrent layer of mode {module.mode!r}")
