"""torch-audit: `autopatch` before the loop, each step audited; warnings and worse, without hardware."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.peers.adapter import Adapter
from benchmarks.peers.cases import Trial
from benchmarks.peers.kinds import Said

NOT_ASKED = ("TA2", "TA40")  # of speed, and of style: AdamW, decay, even kernels, a bias before a norm
ASKED_ALL_THE_SAME = ("TA405",)  # dead filters


class TorchAudit(Adapter):
    """All of its phases; its rules on hardware and practices are no diagnoses and are left out."""

    TITLE = "torch-audit"
    REQUIRES = ("torch-audit==0.3.0",)
    IMPORTS = "torch_audit"
    CLAIMS: ClassVar = {
        "TA100": "non-finite",
        "TA102": "exploding",
        "TA103": "no gradient",
        "TA104": "no gradient",
        "TA105": "dead units",
        "TA30[1-5]": "input range",
        "TA405": "dead units",
        "TA500": "unused",
    }

    def begin(self, trial: Trial) -> None:
        from torch_audit import autopatch

        self.auditor: Any = autopatch(
            trial.model, optimizer=trial.optimizer, every_n_steps=1, run_static=True, run_init=True
        )

    def speak(self, trial: Trial) -> list[Said]:
        found = self.auditor.finish(report=False).findings
        loud = [f for f in found if f.severity.value != "INFO"]
        kept = [f for f in loud if f.rule_id in ASKED_ALL_THE_SAME or not f.rule_id.startswith(NOT_ASKED)]
        words = {(f"{f.rule_id} {f.message}", f.module_path or "") for f in kept}
        return [self.mean(text, place) for text, place in sorted(words)]

    def end(self) -> None:
        if hasattr(self, "auditor"):
            self.auditor.unpatch()


ADAPTER = TorchAudit
