"""The exit code of a diagnosis, and the paths that are refused before the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unvanish.cli.errors import CallError
from unvanish.cli.outcome import exit_code, refuse_path
from unvanish.clinic.config import Config
from unvanish.core.diagnosis import SEVERITIES, Diagnosis, Finding
from unvanish.core.trace import STATISTICS, Trace


@pytest.mark.parametrize("severity", [None, *SEVERITIES])
@pytest.mark.parametrize("level", [None, *SEVERITIES, "never"])
def test_findings_at_or_above_the_level_give_1(severity, level):
    findings = (Finding("ACT001", "name", severity, "cause"),) if severity else ()
    diagnosis = Diagnosis(findings, Trace((), np.zeros((0, 0, len(STATISTICS)))))
    rank = {None: -1, **{s: k for k, s in enumerate(SEVERITIES)}, "never": len(SEVERITIES)}
    expected = int(rank[severity] >= rank[level or "warning"])
    assert exit_code(diagnosis, Config(fail_on=level)) == expected
    if level is None:
        assert (expected == 0) == diagnosis.healthy


def test_a_path_needs_its_suffix_and_its_folder(tmp_path: Path):
    refuse_path("--out", None, ".yaml")
    refuse_path("--out", tmp_path / "a.yml", ".yaml", ".yml")
    with pytest.raises(CallError, match=r"--out a\.txt must end in \.yaml or \.yml"):
        refuse_path("--out", Path("a.txt"), ".yaml", ".yml")
    with pytest.raises(CallError, match="there is no folder"):
        refuse_path("--out", tmp_path / "no" / "a.yaml", ".yaml")
