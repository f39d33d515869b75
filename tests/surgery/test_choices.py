"""Discrete choices keep their values and get the gradient of a soft one, whatever is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import unvanish
from unvanish.cures import cures
from unvanish.surgery.choices import list_handlers
from unvanish.surgery.rewire import Rewire
from unvanish.surgery.surgery import Surgery

TABLE = torch.randn(8, 8, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """A layer, a choice of what it makes, and a head."""

    def __init__(self, choose: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head, self.choose = nn.Linear(6, 8), nn.Linear(8, 3), choose

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.choose(self.first(x)))
        return out


def chain(h: Tensor) -> Tensor:
    gate = (torch.sigmoid(h) > 0.5).float()
    return F.one_hot((gate * h).softmax(-1).argmax(-1), 8).float()


CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "above": lambda h: (h > 0).float(),
    "below a probability": lambda h: (torch.sigmoid(h) < 0.4).to(torch.float32),
    "a gate by a mask": lambda h: h.detach() * (h >= 0.1),
    "where": lambda h: torch.where(h > 0, torch.ones_like(h), -torch.ones_like(h)),
    "one-hot": lambda h: F.one_hot(h.argmax(-1), 8).float(),
    "one-hot of probabilities": lambda h: F.one_hot(h.softmax(-1).argmax(dim=-1), 8).type_as(h),
    "looked up": lambda h: TABLE[h.argmax(-1)],
    "embedded": lambda h: F.embedding(h.argmax(-1), TABLE),
    "equal to the largest": lambda h: 1.0 * (h == h.max(-1, keepdim=True)[0]),
    "integers": lambda h: (4 * h).int().float() / 4,
    "drawn": lambda h: TABLE[torch.multinomial(h.softmax(-1), 1).squeeze(-1)],
    "a distribution": lambda h: TABLE[torch.distributions.Categorical(logits=h).sample()],
    "in a chain": chain,
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_keeps_its_value_and_gets_a_gradient(name: str) -> None:
    model, x = Net(CHOICES[name]), torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    before = model(x)
    assert before.grad_fn is not None
    before.sum().backward()
    assert model.first.weight.grad is None
    Surgery(model).graft("", Rewire(list_handlers()), "soft")
    torch.manual_seed(2)
    after = model(x)
    torch.testing.assert_close(after, before)
    after.square().sum().backward()
    assert model.first.weight.grad is not None and bool(model.first.weight.grad.any())


@pytest.mark.parametrize("name", ["above", "one-hot", "integers", "in a chain", "a distribution"])
def test_the_remedy_of_a_cut_by_a_choice_can_be_applied(name: str) -> None:
    torch.manual_seed(0)
    batch = torch.randn(32, 6), torch.randint(0, 3, (32,))
    model, entropy = Net(CHOICES[name]), nn.CrossEntropyLoss()
    diagnosis = unvanish.check(model, batch, entropy, confirm=False)
    found = diagnosis.findings[0]
    assert found.code == "GRF001" and found.remedies[0].cure == "straight-through"
    cure: Any = cures()["straight-through"]
    (planned,) = cure.plan(diagnosis.trace, found.remedies[0])
    assert cure.code(planned)[0].startswith("y = ")
    cure.apply(Surgery(model), planned.targets, **planned.parameters)
    assert not unvanish.check(model, batch, entropy, confirm=False).codes("warning")


@pytest.mark.parametrize(
    "choose", [lambda h: h * (TABLE[0] > 0), lambda h: h + F.one_hot(torch.arange(16) % 8, 8).float()]
)
def test_choices_of_what_does_not_learn_are_left_alone(choose: Callable[[Tensor], Tensor]) -> None:
    model, x = Net(choose), torch.randn(16, 6)
    model(x).sum().backward()
    before = model.first.weight.grad
    model.zero_grad()
    Surgery(model).graft("", Rewire(list_handlers()), "soft")
    model(x).sum().backward()
    assert before is not None and model.first.weight.grad is not None
    torch.testing.assert_close(model.first.weight.grad, before)
