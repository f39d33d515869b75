"""Metrics of a validation under the names that users of detectors and classifiers type."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unvanish.lab.detection.metrics import DetectionMetrics
from unvanish.train import Results, TrainError

METRICS = {"mAP50-95": 0.4, "mAP50": 0.6, "precision": 0.7, "recall": 0.5}
TABLES = {
    "ap50-95": torch.tensor([0.5, math.nan, 0.3]),
    "ap50": torch.tensor([0.7, math.nan, 0.5]),
    "ap75": torch.tensor([0.4, math.nan, 0.2]),
}


def results(task="detect", metrics=METRICS, tables=TABLES, **more):
    return Results(task, metrics, 0.4, tables=tables, names=("a", "b", "c"), **more)


def test_boxes_as_users_read_them():
    box = results().box
    assert (box.map, box.map50, box.mp, box.mr) == (0.4, 0.6, 0.7, 0.5)
    assert box.map75 == pytest.approx(0.3) and box.maps.tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert box.ap_class_index.tolist() == [0, 2] and box.ap50.tolist() == pytest.approx([0.7, 0.5])
    assert box.mean_results() == [0.7, 0.5, 0.6, 0.4] and box.class_result(1) == pytest.approx((0.5, 0.3))
    assert np.array_equal(results().maps, box.maps)


def test_names_as_users_write_them():
    both = results("segment", METRICS | {f"mask {k}": v / 2 for k, v in METRICS.items()},
                   TABLES | {f"mask {k}": v / 2 for k, v in TABLES.items()})  # fmt: skip
    assert both.seg.map == 0.2 and both.seg.maps.tolist() == pytest.approx([0.25, 0.2, 0.15])
    assert both.box.map == 0.4 and both.results_dict["metrics/mAP50-95(M)"] == 0.2
    assert results().results_dict == {
        "metrics/mAP50-95(B)": 0.4, "metrics/mAP50(B)": 0.6, "metrics/precision(B)": 0.7,
        "metrics/recall(B)": 0.5, "fitness": 0.4,
    }  # fmt: skip


def test_classes_as_users_read_them():
    found = results("classify", {"accuracy": 0.8, "f1": 0.7}, {})
    assert found.top1 == 0.8 and found.top5 == 1.0  # of three classes
    assert found.results_dict == {"metrics/accuracy_top1": 0.8, "metrics/f1": 0.7, "fitness": 0.4}
    ten = Results("classify", {"accuracy": 0.8, "top5": 0.9}, names=tuple("abcdefghij"))
    assert ten.top5 == 0.9


@pytest.mark.parametrize("name", ["box", "seg", "maps", "top1"])
def test_what_a_task_has_not_is_said(name):
    with pytest.raises(TrainError, match=r"of the task language, have no .*; they have perplexity"):
        getattr(results("language", {"perplexity": 3.0}, {}), name)


def test_the_precision_at_three_quarters_is_that_of_the_overlap():
    metrics = DetectionMetrics(1, 100)
    found = torch.zeros(1, 5, 1)
    found[0, :, 0] = torch.tensor([50, 50, 40, 40, 0.9])
    metrics.update(found, torch.tensor([[0, 0, 0.5, 0.5, 0.4, 0.48]]))  # overlap 40 / 48 = 0.83
    tables = metrics.tables()
    assert float(tables["ap75"]) == pytest.approx(1, abs=0.01) and float(tables["ap50-95"]) == pytest.approx(
        0.7, abs=0.01
    )
    far = DetectionMetrics(1, 100)
    far.update(found, torch.tensor([[0, 0, 0.5, 0.5, 0.4, 0.6]]))  # 0.67
    assert float(far.tables()["ap75"]) == 0 and float(far.tables()["ap50"]) == pytest.approx(1, abs=0.01)
