"""What holds for every cure: it can be applied, taken back exactly, copied, written down, and does what it
claims.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unvanish.clinic.prescription import Prescription, apply
from unvanish.core.diagnosis import Case, Remedy
from unvanish.cures import Cure, cures
from unvanish.probes import calls
from unvanish.rules import rules
from unvanish.surgery.receipt import SurgeryError

NAMES = list(cures())


@pytest.fixture(params=NAMES)
def cure(request: pytest.FixtureRequest) -> Cure:
    return cures()[request.param]


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), 1e-3)


def treat(case: Case, remedy: Remedy, held: Any = None) -> Any:
    return apply(
        case.model, [remedy], batch=case.batch, loss=case.loss, optimizer=held or optimizer(case.model)
    )


def outputs(case: Case, model: nn.Module) -> Tensor:
    """What the model gives for the case's batch, without a trace in the model or the process."""
    torch.manual_seed(7)
    kept = copy.deepcopy(model)
    call = calls.prepare(case.batch, case.loss, gradients=False)
    found = calls.predictions(kept(*call.args, **call.kwargs))
    return found[0].detach().double()


def state(model: nn.Module) -> dict[str, Any]:
    """Everything of a model that surgery could leave changed."""
    return {
        "tensors": {n: (id(t), t.dtype, t.requires_grad) for n, t in tensors(model)},
        "values": {n: t.detach().clone() for n, t in tensors(model)},
        "modules": {n: (id(m), type(m), m.training) for n, m in model.named_modules(remove_duplicate=False)},
        "hooks": {
            n: [len(vars(m)[k]) for k in vars(m) if k.endswith("_hooks")] for n, m in model.named_modules()
        },
        "attributes": {n: sorted(vars(m)) for n, m in model.named_modules()},
    }


def tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert {k: v for k, v in a.items() if k != "values"} == {k: v for k, v in b.items() if k != "values"}
    for name, value in a["values"].items():
        assert torch.equal(value, b["values"][name]), name


def test_it_changes_something_and_says_what(cure: Cure) -> None:
    case, remedy = cure.case()
    receipt = treat(case, remedy)
    assert len(receipt) > 0
    assert all(change.what for change in receipt.changes)
    assert str(receipt).count("\n") == len(receipt) - 1


def test_undo_restores_exactly(cure: Cure) -> None:
    case, remedy = cure.case()
    held = optimizer(case.model)
    case.model(*calls.prepare(case.batch, case.loss, gradients=False).args)  # a model that has run
    before, groups = (
        state(case.model),
        [dict(g, params=[id(p) for p in g["params"]]) for g in held.param_groups],
    )
    receipt = treat(case, remedy, held)
    receipt.undo()
    same(before, state(case.model))
    assert groups == [dict(g, params=[id(p) for p in g["params"]]) for g in held.param_groups]
    assert not held._optimizer_step_pre_hooks
    assert receipt.loss is None
    receipt.undo()  # nothing left to do


def test_what_it_calls_exact_keeps_the_outputs(cure: Cure) -> None:
    case, remedy = cure.case()
    if remedy.safety != "exact":
        pytest.skip("it does not claim to")
    before = outputs(case, case.model)
    half = next(case.model.parameters()).dtype == torch.float16
    treat(case, remedy)
    after = outputs(case, case.model)
    assert torch.allclose(
        before, after, rtol=0, atol=2e-3 if half else 2e-6 * max(1.0, float(before.abs().max()))
    )


def test_the_remedy_of_its_example_has_its_safety_or_a_stricter_one(cure: Cure) -> None:
    _, remedy = cure.case()
    assert cure.safety in ("exact", "retrain")
    assert remedy.safety == cure.safety or remedy.safety == "exact"
    assert remedy.cure == cure.name


def test_a_copy_of_the_treated_model_behaves_like_it(cure: Cure) -> None:
    case, remedy = cure.case()
    treat(case, remedy)
    assert torch.equal(outputs(case, case.model), outputs(case, copy.deepcopy(case.model)))


def test_two_applications_give_the_same_numbers(cure: Cure) -> None:
    """A prescription is a recipe: what it draws at random follows from it."""
    (one, remedy), (two, _) = cure.case(), cure.case()
    two.model.load_state_dict(one.model.state_dict())
    treat(one, remedy)
    torch.manual_seed(99)  # the process's own generator plays no part
    treat(two, Prescription.read(Prescription((remedy,)).yaml()).remedies[0])
    got, wanted = outputs(two, two.model), outputs(one, one.model)
    assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-5)  # numbers in YAML have six digits


def test_gradients_reach_what_they_should(cure: Cure) -> None:
    case, remedy = cure.case()
    receipt = treat(case, remedy)
    call = calls.prepare(case.batch, receipt.loss or case.loss, gradients=False)
    value = call.objective(case.model(*call.args, **call.kwargs))
    value.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(value)
    got = [p for p in case.model.parameters() if p.requires_grad and p.grad is not None]
    assert got
    assert all(torch.isfinite(p.grad).all() for p in got if p.grad is not None)


def test_the_optimizer_holds_exactly_the_parameters_there_are(cure: Cure) -> None:
    case, remedy = cure.case()
    held = optimizer(case.model)
    treat(case, remedy, held)
    inside = [id(p) for g in held.param_groups for p in g["params"]]
    assert len(inside) == len(set(inside))
    assert set(inside) == {id(p) for p in case.model.parameters()}


def test_a_wrong_target_is_refused_and_nothing_is_left_behind(cure: Cure) -> None:
    case, remedy = cure.case()
    if not remedy.targets:
        pytest.skip("it takes the whole model")
    if cure.name in ("add-to-optimizer", "remove-detach", "standardise-input", "backward-lsuv", "z-loss"):
        pytest.skip("its targets only say where to look")
    before = state(case.model)
    wrong = Remedy(cure.name, ("no.such.place",), remedy.why, remedy.safety, {
        k: v for k, v in remedy.parameters.items() if not isinstance(v, list)})  # fmt: skip
    with pytest.raises((SurgeryError, ValueError)):
        treat(case, wrong)
    same(before, state(case.model))


def test_an_unknown_parameter_is_refused_with_the_nearest_one(cure: Cure) -> None:
    case, remedy = cure.case()
    wrong = Remedy(cure.name, remedy.targets, "", remedy.safety, {**remedy.parameters, "gian": 1.0})
    with pytest.raises(SurgeryError, match="no parameter 'gian'"):
        treat(case, wrong)


def test_it_has_a_page_and_lines_of_pytorch(cure: Cure) -> None:
    assert "Safety" in cure.page
    assert len(cure.page.split("\n\n")[0]) > 20
    _, remedy = cure.case()
    lines = cure.code(remedy)
    assert lines
    assert all(isinstance(line, str) and "\n" not in line for line in lines)


def test_its_settings_have_defaults(cure: Cure) -> None:
    parameters = inspect.signature(cure.module.apply).parameters
    assert list(parameters)[:2] == ["surgery", "targets"]
    assert all(default is not inspect.Parameter.empty for default in cure.settings.values())


def test_hooks_of_the_user_stay(cure: Cure) -> None:
    case, remedy = cure.case()
    seen: list[str] = []
    for name, module in case.model.named_modules():
        module.register_forward_hook(lambda m, a, o, name=name: seen.append(name))
    outputs(case, case.model)
    before = sorted(set(seen))
    treat(case, remedy)
    seen.clear()
    call = calls.prepare(case.batch, case.loss, gradients=False)
    case.model(*call.args, **call.kwargs)
    assert set(before) <= set(seen)


@pytest.mark.parametrize("code", list(rules()))
def test_every_remedy_a_rule_names_exists_or_is_advice(code: str) -> None:
    import unvanish
    from unvanish.clinic.watch import rehearse

    case = rules()[code].case("sick")
    live = "training" in case.options
    diagnosis = (
        rehearse(case)
        if live
        else unvanish.check(case.model, case.batch, case.loss, confirm=False, **case.options)
    )
    for finding in diagnosis.walk():
        for remedy in finding.remedies:
            assert remedy.safety == "advice" or remedy.cure in cures(), (finding.code, remedy.cure)
            for planned in (
                cures()[remedy.cure].plan(diagnosis.trace, remedy) if remedy.safety != "advice" else ()
            ):
                assert planned.cure == remedy.cure
                assert set(planned.parameters) <= set(cures()[remedy.cure].settings)


def test_the_code_names_every_target_or_shows_that_more_follow(cure: Cure) -> None:
    _, remedy = cure.case()
    targets = tuple(f"layers.{i}.weight" for i in range(30))
    code = "\n".join(cure.code(replace(remedy, targets=targets)))
    named = [target for target in targets if target in code or target.removesuffix(".weight") + " " in code]
    assert len(named) in (0, 30) or "..." in code
