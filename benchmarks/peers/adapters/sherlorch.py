"""sherlorch: a trace around forward and backward; asked of the loss, and of each gradient, at every step."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter, held
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said


class Sherlorch(Adapter):
    """It looks for the operation that made the first NaN or infinity, and for nothing else."""

    TITLE = "sherlorch"
    REQUIRES = ("sherlorch==0.1.0",)
    IMPORTS = "sherlorch"
    CLAIMS: ClassVar = {".": "non-finite"}

    def begin(self, trial: Trial) -> None:
        self.words: list[str] = []

    def one_step(self, step: int, trial: Trial) -> float:
        import sherlorch

        trial.optimizer.zero_grad()
        with sherlorch.trace() as tracker:
            tracker.watch(trial.model, name="model")
            loss, _ = trial.objective()
            loss.backward()  # type: ignore[no-untyped-call]
        suspects: list[Any] = [loss, *(p.grad for p in held(trial))]
        if not self.words:
            self.words = [str(tracker.diagnose(t)) for t in suspects if tracker.has_issue(t)][:1]
        trial.optimizer.step()
        return float(loss.detach())

    def speak(self, trial: Trial) -> list[Said]:
        known = {name for name, _ in trial.model.named_modules() if name}
        found = [words.replace("[model.", " ").replace("]", " ").split() for words in self.words]
        return [self.mean(w, *(known & set(split))) for w, split in zip(self.words, found, strict=True)]


ADAPTER = Sherlorch
