"""Matching, confusion, precision and recall, beside plain loops over objects one by one."""

from __future__ import annotations

import math

import pytest
import torch

from unvanish.lab.detection.confusion import count_confusions
from unvanish.lab.detection.matching import match_by_confidence, match_by_overlap
from unvanish.lab.detection.ranking import GRID, Ranking


def table(seed, most=9):
    g = torch.Generator().manual_seed(seed)
    count, objects = (int(torch.randint(0, most, (1,), generator=g)) for _ in range(2))
    return torch.rand(count, objects, generator=g, dtype=torch.float64)


def one_by_one(overlap, least):
    """Whom each takes, the surest first, of those nobody has taken."""
    taken, found = set(), []
    for row in overlap.tolist():
        free = [(fit, i) for i, fit in enumerate(row) if i not in taken and fit >= least]
        found.append(max(free)[1] if free else -1)
        taken |= {found[-1]} - {-1}
    return found


def pair_by_pair(overlap, least):
    """Pairs by overlap, the best first."""
    pairs = [(-fit, f, t) for f, row in enumerate(overlap.tolist()) for t, fit in enumerate(row)]
    found, taken = [-1] * len(overlap), set()
    for fit, f, t in sorted(pairs):
        if -fit > least and found[f] < 0 and t not in taken:
            found[f] = t
            taken.add(t)
    return found


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("least", [0.1, 0.5])
def test_all_at_once_is_one_by_one(seed, least):
    overlap = table(seed)
    assert match_by_confidence(overlap, least).tolist() == one_by_one(overlap, least)
    assert match_by_overlap(overlap, least).tolist() == pair_by_pair(overlap, least)


def test_equal_overlaps_end_too():
    same = torch.full((3, 2), 0.7)
    assert sorted(match_by_overlap(same, 0.45).tolist()) == [-1, 0, 1]
    assert (
        sorted(match_by_confidence(same, 0.5).tolist()) == [-1, 0, 1]
        and match_by_confidence(same, 0.5)[2] == -1
    )
    assert (
        match_by_confidence(torch.zeros(2, 0), 0.5).tolist()
        == match_by_overlap(torch.zeros(2, 0), 0.5).tolist()
        == [-1, -1]
    )


def case(seed, classes=4, images=5):
    """Of each image: confidences, surest first, some equal, classes, objects' classes, overlaps."""
    g = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(images):
        overlap = table(int(torch.randint(10_000, (1,), generator=g)), 12)
        count, objects = overlap.shape
        scores = torch.randint(0, 20, (count,), generator=g).sort(descending=True).values / 20
        labels = torch.randint(classes, (count,), generator=g).float()
        real = torch.randint(classes - 1, (objects,), generator=g).float()  # the last class does not occur
        made.append((scores, labels, real, overlap))
    return made


@pytest.mark.parametrize("seed", range(12))
def test_the_confusion_is_that_of_pairs(seed):
    for scores, labels, real, overlap in case(seed):
        expected = torch.zeros(5, 5, dtype=torch.long)
        sure = [i for i, s in enumerate(scores.tolist()) if s > 0.25]
        pairs = pair_by_pair(overlap[sure], 0.45)
        for i, t in zip(sure, pairs, strict=True):
            expected[int(real[t]) if t >= 0 else 4, int(labels[i])] += 1
        for t, label in enumerate(real.tolist()):
            expected[int(label), 4] += t not in pairs
        assert torch.equal(count_confusions(scores, labels, real, overlap, 4), expected)


def outcomes(images, label, confidence):
    """Of one class: how many are found, rightly found, and there, among what is at least so sure."""
    found = right = real = 0
    for scores, labels, truth, overlap in images:
        own = [i for i, c in enumerate(labels.tolist()) if c == label]
        objects = [i for i, c in enumerate(truth.tolist()) if c == label]
        hits = one_by_one(overlap[own][:, objects], 0.5)
        counted = [h for i, h in zip(own, hits, strict=True) if float(scores[i]) >= confidence]
        found, right = found + len(counted), right + sum(h >= 0 for h in counted)
        real += len(objects)
    return found, right, real


def means(images, confidence, classes):
    """Mean precision, recall and F1 over classes."""
    rows = []
    for label in classes:
        found, right, real = outcomes(images, label, confidence)
        rows.append((right / max(1, found), right / real, 2 * right / (found + real)))
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("seed", range(12))
def test_the_best_balance_is_found_among_all_confidences(seed):
    images, ranking = case(seed), Ranking(4)
    for image in images:
        ranking.add(*image)
    classes = sorted({int(c) for _, _, real, _ in images for c in real})
    known = {float(s) for scores, *_ in images for s in scores}
    best = max(means(images, confidence, classes)[2] for confidence in known)
    found = ranking.balance()
    assert found.f1 == pytest.approx(best, abs=1e-12)
    expected = means(images, found.confidence, classes)
    assert [found.precision, found.recall, found.f1] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_curves_are_counted_right(seed):
    images, ranking = case(seed), Ranking(4)
    for image in images:
        ranking.add(*image)
    curves = ranking.at(GRID)
    for at in (0, 37, 249, 251, 500, 999, 1000):
        for label in range(4):
            found, right, real = outcomes(images, label, float(GRID[at]))
            told = [curves[name][label, at] for name in ("precision", "recall", "f1")]
            expected = [right / max(1, found), right / max(1, real), 2 * right / max(1, found + real)]
            assert told == pytest.approx(expected, abs=1e-12)


def test_nothing_found_is_no_success():
    ranking = Ranking(2)
    assert ranking.balance().f1 == 0
    ranking.add(torch.zeros(0), torch.zeros(0), torch.tensor([1.0]), torch.zeros(0, 1))
    assert (ranking.balance().precision, ranking.balance().recall) == (0, 0)
    assert math.isnan(ranking.balance().confidence)
