"""Mean average precision by COCO's protocol, with faster-coco-eval.

Notable:
- Average precision is the area under precision over recall, at 101 recalls; its mean over the classes that
  occur and over overlaps of 0.50, 0.55 ... 0.95 is mAP50-95, at 0.50 alone mAP50.
- Overlaps are ratios, so any unit works: pixels of the letterbox here.

References: Lin et al. 2014 (COCO, arXiv 1405.0312).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ALL = [[0.0, 1e10]]  # areas that count


def average_by_class(precision: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average precision (3, classes) over all overlaps, at 0.50, at 0.75; NaN for a class without objects."""
    means = np.stack([precision.mean((0, 1)), precision[0].mean(0), precision[len(precision) // 2].mean(0)])
    means[:, (precision < 0).all((0, 1))] = np.nan
    return means


def overall(precision: npt.NDArray[np.float64]) -> tuple[float, float]:
    """(mAP50-95, mAP50) of precisions (overlaps, recalls, classes); 0 if no class occurs."""
    means = average_by_class(precision)
    counted = means[:, ~np.isnan(means[0])]
    return (float(counted[0].mean()), float(counted[1].mean())) if counted.size else (0.0, 0.0)


def precision_table(
    truth: Sequence[Mapping[str, Any]],
    found: Sequence[Mapping[str, Any]],
    images: int,
    classes: int,
    kind: str = "bbox",
    most: int = 300,
) -> npt.NDArray[np.float64]:
    """Precision (overlaps, recalls, classes), -1 for classes that do not occur.

    Annotations have image_id, category_id, bbox (x, y, w, h) and, if found, score; `kind`: "bbox", or "segm"
    if they have a `segmentation`.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    whole: dict[str, Any] = {
        "info": {},
        "images": [{"id": i, "height": 1, "width": 1} for i in range(images)],
    }
    whole["categories"] = [{"id": c, "name": str(c)} for c in range(classes)]
    whole["annotations"] = [{"id": i, "iscrowd": 0, **t} for i, t in enumerate(truth, 1)]
    real = COCO(whole)
    made = COCOeval_faster(real, real.loadRes([dict(f) for f in found]), kind, print_function=_silent)
    made.params.maxDets, made.params.areaRng, made.params.areaRngLbl = [most], ALL, ["all"]
    made.evaluate()
    made.accumulate()
    table: npt.NDArray[np.float64] = np.asarray(made.eval["precision"])[:, :, :, 0, 0]
    return table


def _silent(*words: Any, **settings: Any) -> None:
    """Print nothing, in place of the evaluator's own output."""
