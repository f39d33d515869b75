"""The watch of a callback: judged when it is made, never copied with it, closed when it is dropped."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from unvanish.clinic.config import ConfigError
from unvanish.integrations.attachment import Attachment
from unvanish.probes.errors import CheckError
from unvanish.store import open_run


def tower(kind: type[nn.Module], depth: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(16, 16), kind())]
    return nn.Sequential(*layers, nn.Linear(16, 4))


def train(model: nn.Module, optimizer: Any, steps: int, broken: int = -1) -> list[float]:
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(1))
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(
            model(x * (torch.nan if step == broken else 1)), x[:, :4].argmax(1)
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"evry": 3}, TypeError, "'evry' (did you mean 'every'?)"),
        ({"budget": 3}, CheckError, "budget is 3"),
        ({"on_finding": "lgo"}, CheckError, "did you mean 'log'?"),
        ({"select": ["ACT099"]}, ConfigError, "ACT099"),
        ({"stop": "OPT099"}, ConfigError, "stop: no rule code begins with 'OPT099'"),
        ({"stop": 3}, CheckError, "stop is 3"),
    ],
)
def test_wrong_arguments_are_refused_when_the_callback_is_made(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as raised:
        Attachment(**arguments)
    assert words in str(raised.value)


def test_it_tells_findings_once_and_numbers_of_the_last_step() -> None:
    model = tower(nn.Sigmoid, 14)
    optimizer = SGD(model.parameters(), lr=0.1)
    attachment = Attachment(every=1, on_finding="silent", stop=True)
    attachment.open(model, optimizer)
    watch = attachment.watch
    attachment.open(model, optimizer)
    assert attachment.watch is watch  # the same training
    assert not attachment.wants_stop
    losses = train(model, optimizer, 4)
    assert [f.code for f in attachment.take_findings()] == ["ACT002"]
    assert attachment.take_findings() == []
    assert attachment.wants_stop
    numbers = attachment.metrics()
    assert numbers["unvanish/loss"] == losses[-1]
    assert numbers["unvanish/learning_rate"] == 0.1
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    assert numbers["unvanish/gradient_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert numbers["unvanish/flow_decades"] < -8
    assert numbers["unvanish/update_decades"] < -3
    attachment.close()
    attachment.close()
    assert not attachment.is_open
    assert attachment.steps == 4


def test_it_stops_for_the_rules_that_were_named() -> None:
    model = tower(nn.ReLU, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    wants = {}
    for stop in (True, "NUM001", ["OPT001"], False):
        attachment = Attachment(on_finding=("silent", "guard"), stop=stop)
        attachment.open(model, optimizer)
        train(model, optimizer, 3, broken=1)
        wants[str(stop)] = attachment.wants_stop
        attachment.close()
    assert wants == {"True": True, "NUM001": True, "['OPT001']": False, "False": False}


def test_a_copy_watches_nothing_and_its_original_goes_on() -> None:
    model = tower(nn.ReLU, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    attachment = Attachment(every=1, on_finding="silent")
    attachment.open(model, optimizer)
    for copied in (copy.deepcopy(attachment), pickle.loads(pickle.dumps(attachment))):
        assert copied.watch is None
        assert copied.options == {"every": 1}
        assert copied.metrics() == {}
        copied.close()
    train(model, optimizer, 2)
    assert attachment.steps == 2
    attachment.close()


def test_who_drops_it_closes_it() -> None:
    model = tower(nn.ReLU, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    attachment = Attachment(on_finding="silent")
    attachment.open(model, optimizer)
    watch = attachment.watch
    assert watch is not None
    del attachment
    gc.collect()
    assert watch.closed
    assert not optimizer._optimizer_step_pre_hooks


def test_what_watch_refuses_is_a_warning_and_the_training_goes_on() -> None:
    model = tower(nn.ReLU, 2)
    optimizer = torch.optim.LBFGS(model.parameters())
    attachment = Attachment(on_finding="guard")
    with pytest.warns(RuntimeWarning, match="this training is not watched: .*LBFGS"):
        attachment.open(model, optimizer)
    assert attachment.watch is None
    assert attachment.metrics() == {}


def test_a_resumed_training_goes_on_in_its_run(tmp_path: Path) -> None:
    model = tower(nn.ReLU, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    attachment = Attachment(run=tmp_path / "run", on_finding="silent")
    for start in (None, 3):
        attachment.open(model, optimizer, start=start)
        train(model, optimizer, 5)
        attachment.close()
    assert open_run(tmp_path / "run").steps()["step"].tolist() == list(range(8))


def test_findings_go_into_the_library_s_log_and_nowhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[str, str]] = []
    fails = {"on": False}

    def tell(text: str, severity: str) -> None:
        if fails["on"]:
            raise OSError("its disk is full")
        told.append((severity, text))

    for broken, way in ((False, "log"), (False, "silent"), (True, "log")):
        fails["on"] = broken
        model = tower(nn.Sigmoid, 14)
        optimizer = SGD(model.parameters(), lr=0.1)
        attachment = Attachment(every=1, on_finding=way)
        attachment.open(model, optimizer, tell=tell)
        train(model, optimizer, 4)
        attachment.close()
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("ACT002") == said.err.count("its disk is full") == int(broken)
    assert [severity for severity, _ in told] == ["error"]
    assert "error[ACT002] contracting-activation at step" in told[0][1]


def test_a_callback_tells_sinks_too(tmp_path: Path) -> None:
    with pytest.raises(CheckError, match="is no sink"):
        Attachment(to="jsnl")
    model = tower(nn.ReLU, 2)
    optimizer = SGD(model.parameters(), lr=0.1)
    attachment = Attachment(to=f"jsonl:{tmp_path / 'rows.jsonl'}")
    attachment.open(model, optimizer)
    train(model, optimizer, 3)
    attachment.close()
    assert (tmp_path / "rows.jsonl").read_text().count('"kind": "step"') == 3
