"""Classification of texts: token ids (B, T), padded with 0, to logits (B, classes).

The loss is cross entropy; accuracy decides.
"""

from __future__ import annotations

from unvanish.lab.tasks.classify import example, loss, metrics

__all__ = ["FITNESS", "HIGHER", "example", "loss", "metrics"]
FITNESS, HIGHER = "accuracy", True
