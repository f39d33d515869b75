"""sentence-transformers: features of several texts and the library's own losses, for check."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import unvanish

pytestmark = pytest.mark.filterwarnings("ignore", "error:unvanish")

with warnings.catch_warnings():  # the library and what it imports
    warnings.simplefilter("ignore")
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Dense, StaticEmbedding

from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

WORDS = ["a", "the", "cat", "dog", "sits", "runs", "road", "red", "car", "tree", "big"]


def build(kind: type[nn.Module], depth: int) -> Any:
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(["?", *WORDS])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    hidden = [Dense(32, 32, activation_function=kind()) for _ in range(depth)]
    return SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=32), *hidden], device="cpu")


def features(model: Any) -> list[Any]:
    texts = ["the cat sits", "a red car", "the big tree"], ["a cat", "the car", "a tree"]
    return [model.preprocess(list(part)) for part in texts]


def test_features_and_losses_are_read() -> None:
    model = build(nn.Tanh, 2)
    assert unvanish.check(model, features(model)[0]).findings == ()
    loss = MultipleNegativesRankingLoss(model)
    assert unvanish.check(loss, (features(model), torch.zeros(3))).findings == ()


def test_a_tower_of_sigmoids_is_named() -> None:
    model = build(nn.Sigmoid, 10)
    diagnosis = unvanish.check(MultipleNegativesRankingLoss(model), (features(model), torch.zeros(3)))
    assert diagnosis.findings[0].code == "ACT002"
