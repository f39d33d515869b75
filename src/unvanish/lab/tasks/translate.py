"""Translation: source ids (B, S) and the target so far (B, T) to logits (B, T, V) of the target's next token.

The loss is cross entropy in nats per token, without padding, and perplexity under teacher forcing decides.
BLEU (Papineni et al. 2002, by sacreBLEU, Post 2018) is computed on the network's own greedy translations, on
request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, distributed, nn, no_grad

from unvanish.lab.tasks._language import draw_predictions, next_token_metrics
from unvanish.lab.tasks._metrics import Metrics
from unvanish.lab.tasks.language import loss
from unvanish.lab.tokens import BEGIN, END, PAD

__all__ = ["FITNESS", "HIGHER", "TranslationMetrics", "example", "loss", "metrics"]
FITNESS, HIGHER = "perplexity", False


class TranslationMetrics(Metrics):
    """Perplexity and token accuracy of predictions; BLEU of whole translations."""

    decodes = True

    def __init__(self, vocabulary: int, decode: Callable[[list[int]], str] | None) -> None:
        super().__init__(next_token_metrics(vocabulary))
        self.decode = decode or (lambda ids: " ".join(map(str, ids)))
        self.pairs: list[tuple[str, str]] = []

    def observe(self, net: nn.Module, x: Any, y: Tensor) -> None:
        """Translate a batch greedily with `net.translate`; keep the pairs with the references."""
        with no_grad():
            answers = net.translate(x[0], y.shape[1] + 10)  # type: ignore[operator]
        for answer, reference in zip(answers.tolist(), y.tolist(), strict=True):
            self.pairs.append((self.decode(strip_marks(answer)), self.decode(strip_marks(reference))))

    def compute(self) -> dict[str, float]:
        """The numbers so far; `bleu` (0 to 100), over all processes, if translations were observed."""
        pairs = gather_pairs(self.pairs)
        return super().compute() | ({"bleu": bleu(pairs)} if pairs else {})

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.pairs.clear()


def strip_marks(ids: list[int]) -> list[int]:
    """The ids up to the first end mark, without begin marks and padding."""
    upto = ids[: ids.index(END)] if END in ids else ids
    return [i for i in upto if i not in (PAD, BEGIN)]


def gather_pairs(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs of all processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return pairs
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, pairs)
    return [pair for some in found for pair in some]


def bleu(pairs: list[tuple[str, str]]) -> float:
    """Corpus BLEU, 0 to 100, of (translation, reference) pairs, with sacreBLEU's own tokenisation (13a)."""
    from sacrebleu.metrics.bleu import BLEU

    answers, references = zip(*pairs, strict=True)
    return float(BLEU().corpus_score(list(answers), [list(references)]).score)


def metrics(facts: Mapping[str, Any], decode: Callable[[list[int]], str] | None = None) -> Metrics:
    """Perplexity, token accuracy, and BLEU of observed translations."""
    return TranslationMetrics(int(facts["target_vocabulary"]), decode)


def example(facts: Mapping[str, Any], generator: Any) -> tuple[Tensor, Tensor]:
    """Random logits (4, 9, V) and ids (4, 9) of the target."""
    return draw_predictions(int(facts["target_vocabulary"]), generator)
