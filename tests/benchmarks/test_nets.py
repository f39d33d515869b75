"""The benchmark's nets: the same for the same seed, sick where they should be, judged by others' rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import unvanish
from unvanish.core.diagnosis import Finding

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.examination import Questions, Verdict, examine  # noqa: E402
from benchmarks.nets import generate, healthy  # noqa: E402
from benchmarks.nets.activations import critical, moments  # noqa: E402
from benchmarks.nets.draw import seeded  # noqa: E402
from benchmarks.nets.faults import PLANTS  # noqa: E402
from benchmarks.nets.first_step import find_stumble  # noqa: E402
from benchmarks.nets.health import ailments  # noqa: E402
from benchmarks.nets.measure import read  # noqa: E402
from benchmarks.nets.net import Redraw  # noqa: E402

from benchmarks import diagnosis, nets, published, scoreboard  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # sick nets provoke many


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_codes_cover_the_faults_that_need_no_history():
    families = {code[:3] for code in nets.CODES}
    assert families == {"ACT", "INI", "DEP", "NRM", "INP", "REC", "ATT", "OUT", "PRC", "GRF", "NUM", "OPT"}
    assert len(nets.CODES) == 25


def test_the_splits_share_no_seed():
    dev, test = (set(nets.seeds(split, 1000, 500)) for split in ("dev", "test"))
    assert len(dev) == len(test) == 1500 and not dev & test


def test_every_fault_is_equally_common():
    faults = [nets.fault_of(seed) for seed in nets.seeds("test", 1000, 500)]
    assert {faults.count(code) for code in nets.CODES} == {40}
    assert faults.count(None) == 500


@pytest.mark.parametrize("seed", [0, 7, 13, 24, 500_000, 500_013])
def test_a_seed_gives_the_same_net(seed):
    torch.manual_seed(seed + 1)
    before = torch.random.get_rng_state()
    first = nets.sample(seed)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(99)
    second = nets.sample(seed)
    assert first.fault == second.fault and first.family == second.family
    states = zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) or bool((a != a).any()) for a, b in states)


@pytest.mark.parametrize("code", nets.CODES)
def test_a_planted_fault_is_measured_and_its_loss_is_usable(code):
    example = nets.sample(nets.CODES.index(code))
    assert example.fault == code and example.description["measured"]
    loss, _, _ = published.objective(example.model, example.batch, example.loss)
    assert loss.ndim == 0


@pytest.mark.parametrize("recipe", sorted(healthy.BY_NAME))
def test_a_healthy_recipe_yields_healthy_nets(recipe):
    for attempt in range(generate.ATTEMPTS):
        try:
            with seeded(f"{recipe}/{attempt}") as draw:
                net = healthy.BY_NAME[recipe](draw)
                if not ailments(net, read(net)):
                    return
        except Redraw:
            continue
    pytest.fail(f"{recipe} was never healthy")


def test_removing_the_plant_removes_the_symptom():
    with seeded("twin") as draw:
        plant = PLANTS["INI001"](draw)
    sick, well = read(plant.sick), read(plant.well)
    assert sick.ratio < -6 < -3 <= well.ratio
    assert plant.symptom(sick, well) == "" and plant.symptom(well, well) != ""


def test_the_critical_point_of_relu_and_tanh():
    assert critical("relu", 1.0) == pytest.approx((2**0.5, 0.0), abs=1e-3)
    assert critical("tanh", 1.0) == pytest.approx((1.4674, 0.3885), abs=1e-3)
    assert moments("sigmoid", 1.0)[1] ** -0.5 == pytest.approx(4.7226, abs=1e-3)


def test_a_scaled_loss_is_only_scaled():
    for seed in nets.seeds("dev", 0, 30):
        example = nets.sample(seed)
        model, loss = nets.scaled(example, 1000.0)
        before, _, _ = published.objective(example.model.eval(), example.batch, example.loss)
        after, _, _ = published.objective(model.eval(), example.batch, loss)
        assert float(after.detach()) == pytest.approx(1000 * float(before.detach()), rel=1e-3)


def test_the_peers_leave_the_model_alone():
    example = nets.sample(500_000)
    before = {k: v.clone() for k, v in example.model.state_dict().items()}
    said = published.claims(example.model, example.batch, example.loss, example.optimizer)
    assert set(said) == set(published.PEERS)
    assert all(torch.equal(v, before[k]) for k, v in example.model.state_dict().items())


def test_the_peers_name_dead_units_and_nothing_they_cannot():
    dead = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
    torch.nn.init.constant_(dead[0].bias, -50.0)
    batch = torch.randn(16, 8), torch.randint(0, 3, (16,))
    said = published.claims(dead, batch, torch.nn.CrossEntropyLoss())
    assert all(
        published.names(said[peer], "ACT003") for peer in ("SageMaker", "DeepDiagnosis", "TheDeepChecker")
    )
    assert not any(published.names(claims, "REC001") for claims in said.values())


def test_scores_of_made_up_verdicts():
    right = Verdict(0, "mlp", "ACT001", ("ACT001",), "ACT001", description={})
    late = Verdict(1, "mlp", "ACT001", ("INI002", "ACT001"), "INI002", description={})
    calm = Verdict(2, "mlp", None, (), None, description={"recipe": "critical"})
    sheet = scoreboard.by_fault([right, late, calm])
    assert sheet.rows[-1][:4] == ["all", "2", "50.0", "100.0"]
    assert scoreboard.by_recipe([right, late, calm]).rows[-1][2] == "0.0"
    assert scoreboard.confusion([right, late, calm]).rows == [["ACT001", "INI002 (planted found later)", "1"]]
    assert "| all | 2 |" in sheet.markdown()


def test_a_verdict_that_moves_with_the_scale_is_seen():
    verdict = Verdict(0, "mlp", None, ("ACT001",), "ACT001", scales={"1e+06": ("ACT001",), "1e-06": ()})
    assert verdict.scale_free is False


def test_the_command_line_without_unvanish(tmp_path, capsys):
    out, table = tmp_path / "r.json", tmp_path / "r.md"
    options = ["--count", "4", "--jobs", "1", "--no-ours", "--out", str(out), "--markdown", str(table)]
    options += ["--results", str(tmp_path)]
    assert diagnosis.main(options) == 0
    assert "Sick networks" in capsys.readouterr().out
    assert out.exists() and table.read_text().startswith("split dev")
    assert (tmp_path / "diagnosis.jsonl").exists()


def test_an_unknown_fault_is_refused(capsys):
    assert diagnosis.main(["--only", "ACT999"]) == 2
    assert "ACT001" in capsys.readouterr().out


def test_only_picks_seeds_of_one_fault():
    seeds = diagnosis.chosen(diagnosis.arguments(["--only", "GRF001", "--sick", "3", "--split", "test"]))
    assert [nets.fault_of(seed) for seed in seeds] == ["GRF001"] * 3 and min(seeds) >= 1_000_000


def test_a_crash_of_the_tool_is_kept(monkeypatch):
    monkeypatch.setattr("benchmarks.examination.others", lambda example: 1 / 0)
    assert "ZeroDivisionError" in examine(0, Questions(ours=False)).error


class Said:
    """What stands in for a diagnosis: always the same finding."""

    findings = (Finding("ACT001", "saturated-activation", "warning", "made up", sites=("layer0",)),)

    def codes(self):
        return tuple(f.code for f in self.findings)


def test_our_column_is_filled_from_check(monkeypatch):
    monkeypatch.setitem(vars(unvanish), "check", lambda *arguments, **options: Said())
    verdict = examine(0, Questions(scales=True, others=False))
    assert verdict.error == "" and verdict.first == "ACT001" and verdict.codes == ("ACT001",)
    assert verdict.scale_free is True and scoreboard.named_first(verdict) is (verdict.fault == "ACT001")


@pytest.mark.parametrize("seed", [0, 500_000])
def test_a_crash_of_check_is_a_wrong_answer(monkeypatch, seed):
    monkeypatch.setitem(vars(unvanish), "check", lambda *arguments, **options: 1 / 0)
    verdict = examine(seed, Questions(scales=True, others=False))
    assert "ZeroDivisionError" in verdict.error and verdict.scale_free is False
    assert (
        scoreboard.alarmed(verdict) and not scoreboard.named_first(verdict) and not scoreboard.found(verdict)
    )


def test_the_generator_does_not_import_unvanish():
    code = "import sys, benchmarks.nets, benchmarks.published; sys.exit('unvanish' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def hand_over(
    rate: float, dtype: torch.dtype = torch.float32, factor: float = 1.0, kind: Any = torch.optim.SGD
):
    """A small healthy net as a sample, with an optimizer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to(dtype)
    batch = torch.randn(16, 8).to(dtype), torch.randint(0, 4, (16,))

    def loss(output, y):
        return factor * functional.mse_loss(output.float(), 8.0 * functional.one_hot(y, 4))

    return nets.Sample(0, "mlp", None, net, batch, loss, kind(net.parameters(), lr=rate), {})


@pytest.mark.parametrize(
    ("example", "stumble"),
    [
        (hand_over(1e-2), ""),
        (hand_over(1e-2, torch.bfloat16), ""),
        (hand_over(1e-3, kind=torch.optim.Adam), ""),
        (hand_over(1e-3, torch.bfloat16, 1e-2), "step rounded away"),
        (hand_over(1e-3, torch.float16, 1e-3, torch.optim.Adam), "step not finite"),
        (hand_over(1e-2, factor=1e38), "step not finite"),
    ],
)
def test_a_healthy_net_comes_with_an_optimizer_that_moves_it(example, stumble):
    before = {n: p.clone() for n, p in example.model.named_parameters()}
    assert find_stumble(example) == stumble
    assert all(torch.equal(before[n], p) for n, p in example.model.named_parameters())
