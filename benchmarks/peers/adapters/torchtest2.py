"""torchtest2: `check_model` on one batch with the loss and the optimizer; warnings and failures count."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Torchtest2(Adapter):
    """A battery of sanity checks, one of which trains 200 steps on the batch."""

    TITLE = "torchtest2"
    REQUIRES = ("torchtest2==0.1.0",)
    IMPORTS = "torchtest2"
    USED = "one call"
    CLAIMS: ClassVar = {
        "^forward|^output_finite|^loss": "non-finite",
        "^output_varies": "collapse",
        "^initial_loss": "first loss",
        "^optimizer_coverage": "not optimised",
        "^gradient_flow": "no gradient",
        "^gradient_magnitude.*(nan|inf|finite)": "non-finite",
        "^gradient_magnitude.*(small|vanish|tiny)": "vanishing",
        "^gradient_magnitude": "exploding",
        "^params_change": "does not move",
        "^input_dependency": "input ignored",
        "^batch_independence": "samples mixed",
        "^overfit_batch.*(nan|inf|finite)": "non-finite",
        "^eval_determinism": "wrong mode",
        "^gradcheck": "wrong derivative",
    }

    def examine(self, trial: Trial, steps: int) -> list[Said]:
        import torchtest2

        x, y = trial.batch, None
        if isinstance(x, tuple) and trial.loss is not None:
            x, y = trial.batch
        report = torchtest2.check_model(trial.model, x, y, loss_fn=trial.loss, optimizer=trial.optimizer)
        if "contains no tensors" in report["forward"].message:
            raise NotImplementedError(report["forward"].message)
        loud = [r for r in report.results if str(r.status) in ("WARN", "FAIL")]
        known = {name for name, _ in trial.model.named_parameters()}
        return [self.mean(f"{r.name}: {r.message}", *mentioned(r.message, known)) for r in loud]


def mentioned(text: str, known: set[str]) -> list[str]:
    """The parameters that a message names."""
    return [word for word in text.replace(",", " ").split() if word in known]


ADAPTER = Torchtest2
