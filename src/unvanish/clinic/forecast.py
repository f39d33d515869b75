"""`forecast`: the gradient's profile from theory, before data and training, judged by the same rules.

Notable: one forward of a copy on the meta device gives the sites, theory the numbers; the result is a Trace
like a measured one (`assembly`). Inputs are taken as independent standard Gaussians.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unvanish.clinic.arguments import read_sizes, require_number, require_text
from unvanish.clinic.assembly import Assembly
from unvanish.clinic.rounds import choose_rules, fold, rank, visit
from unvanish.core.diagnosis import Diagnosis
from unvanish.core.omissions import Omissions, describe_error
from unvanish.core.plain import name_value
from unvanish.core.trace import Trace
from unvanish.probes.batches import Reading, read_batch
from unvanish.probes.errors import CheckError, ModelCrash
from unvanish.probes.program.outline import Outline, outline
from unvanish.theory.program.follow import predict

# rules that need measured numbers
BY_NUMBERS = ("ACT003", "GRF", "INI003", "INP", "NUM", "OPT", "OUT", "PRC")


def forecast(
    model: Any,
    input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
    *,
    batch: Any = None,
    batch_size: int = 8,
    power: float = 1.0,
    select: Iterable[str] | None = None,
    ignore: Iterable[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    name: str | None = None,
) -> Diagnosis:
    """What `check` would say, predicted: no data, no training; the model is not touched.

    `input_size`: the shape of one sample, (3, 224, 224), or several of them for a model with several inputs.
    `batch`: instead of it any batch, or a loader, as in `check`; only the shapes are used.
    `power`: mean square of the inputs. CheckError if the arguments do not fit together, ModelCrash if the
    model raises on tensors without data.
    """
    started = time.perf_counter()
    if (input_size is None) == (batch is None):
        raise CheckError("give either input_size, the shape of one sample, or a batch")
    if not isinstance(model, nn.Module):
        raise CheckError(f"model is {name_value(model)}, not a torch.nn.Module; pass the module itself")
    require_text(name=name)
    require_number("power", power)
    require_number("batch_size", batch_size)
    choice = choose_rules(select, ignore, settings)
    reading = (
        Reading(_make_batch(input_size, batch_size)) if batch is None else read_batch(model, batch, own=False)
    )
    trace = predict_trace(model, reading.batch, power=power)
    if reading.notes:
        assumed = [*reading.notes, *trace.facts.get("assumptions", ())]
        trace = replace(trace, facts={**trace.facts, "assumptions": assumed})
    rounds = visit(trace, choice.only(code for code in choice.codes if not code.startswith(BY_NUMBERS)))
    why = "needs a measurement, which `check` makes"
    skipped = tuple(replace(v, reason=why) if v.code in choice.codes else v for v in rounds.skipped)
    findings = fold(rank(rounds.findings))
    subject, seconds = name or type(model).__name__, time.perf_counter() - started
    return Diagnosis(findings, trace, rounds.passed, rounds.not_applicable, skipped, subject, seconds)


def _make_batch(input_size: Any, batch_size: int) -> Any:
    """A batch without numbers, of the shapes asked for."""
    sizes = read_sizes(input_size)
    inputs = [torch.empty((batch_size, *size), device="meta") for size in sizes]
    return inputs[0] if len(inputs) == 1 else (tuple(inputs),)


def predict_trace(
    model: nn.Module, batch: Any, *, power: float = 1.0, likeness: float = 0.0, hollow: bool = True
) -> Trace:
    """The predicted Trace of a model on a batch of these shapes.

    `power` and `likeness` of the inputs as in `predict`, `hollow` as in `outline`.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            outlined = _outline(model, batch, hollow)
            return Assembly(model, outlined, predict(outlined.program, power, likeness)).trace()
    except (CheckError, ModelCrash):
        raise
    except Exception as error:
        if Omissions.strict:
            raise
        text = f"theory cannot follow this model ({describe_error(error)}); use `check`, which measures it"
        raise CheckError(text) from error


def _outline(model: nn.Module, batch: Any, hollow: bool) -> Outline:
    """The outline of a model, on noise if the model needs numbers to run and has some."""
    try:
        return outline(model, batch, hollow=hollow)
    except ModelCrash:
        if not hollow or any(p.is_meta for p in model.parameters()):
            raise
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return outline(model, _noise(batch), hollow=False)


def _noise(batch: Any) -> Any:
    """The batch, with standard normal numbers if it has none."""
    if isinstance(batch, Tensor):
        return torch.randn(batch.shape) if batch.is_meta else batch
    if isinstance(batch, Mapping):
        return {k: _noise(v) for k, v in batch.items()}
    if type(batch) in (tuple, list):
        return type(batch)(_noise(v) for v in batch)
    return batch
