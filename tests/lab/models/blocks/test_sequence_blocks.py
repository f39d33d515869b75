"""Every block of sequences: forward and backward, padding, causality, copies, and its start."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unvanish.lab.models.blocks.attention import MultiHeadAttention
from unvanish.lab.models.blocks.embedding import Embedding
from unvanish.lab.models.blocks.language_head import LanguageHead
from unvanish.lab.models.blocks.mingru import MinGRU, MinGRUBlock
from unvanish.lab.models.blocks.readout import Readout
from unvanish.lab.models.blocks.recurrent import Recurrent
from unvanish.lab.models.blocks.recurrent_translator import RecurrentTranslator
from unvanish.lab.models.blocks.sequence_head import SequenceHead
from unvanish.lab.models.blocks.transformer import TransformerBlock
from unvanish.lab.models.blocks.transformer_translator import TransformerTranslator
from unvanish.lab.models.initialise import METHODS, Begin

WIDTH, STEPS = 16, 9
STREAMS: dict[str, Callable[[], nn.Module]] = {
    "rnn": lambda: Recurrent(WIDTH, 8, "rnn"),
    "relu-rnn": lambda: Recurrent(WIDTH, 8, "relu-rnn", length=STEPS),
    "lstm": lambda: Recurrent(WIDTH, 8, "lstm", layers=2, dropout=0.1, length=STEPS),
    "gru": lambda: Recurrent(WIDTH, 8, "gru", length=STEPS),
    "two-way-gru": lambda: Recurrent(WIDTH, 8, "gru", bidirectional=True, layers=2),
    "two-way-lstm": lambda: Recurrent(WIDTH, 8, "lstm", bidirectional=True),
    "mingru": lambda: MinGRU(WIDTH, 8, length=STEPS),
    "mingru-block": lambda: MinGRUBlock(WIDTH, 24, depth=4, length=STEPS),
    "attention": lambda: MultiHeadAttention(WIDTH, 2),
    "causal-attention": lambda: MultiHeadAttention(WIDTH, 4, causal=True, qk_norm=True),
    "pre": lambda: TransformerBlock(WIDTH, 2, 24, causal=True),
    "pre-rms": lambda: TransformerBlock(WIDTH, 2, 24, norm="rms", activation="silu"),
    "post": lambda: TransformerBlock(WIDTH, 2, 24, place="post", activation="relu"),
    "deepnorm": lambda: TransformerBlock(WIDTH, 2, 24, place="deepnorm", depth=36, causal=True),
    "sequence-head": lambda: SequenceHead(WIDTH, outputs=3),
    "language-head": lambda: LanguageHead(WIDTH, 20),
}
CAUSAL = sorted(set(STREAMS) - {"two-way-gru", "two-way-lstm", "attention", "pre-rms", "post"})
READOUTS = [(how, both) for how in ("last", "mean", "max", "mean-max") for both in (False, True)]
TRANSLATORS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"{cell}-{attention}": lambda c=cell, a=attention: RecurrentTranslator(
            20, 30, 8, cell=c, attention=a, length=STEPS
        )
        for cell in ("rnn", "lstm", "gru")
        for attention in ("none", "bahdanau", "luong")
    },
    **{
        f"transformer-{place}": lambda p=place: TransformerTranslator(20, 30, 16, 2, 24, layers=2, place=p)
        for place in ("pre", "post", "deepnorm")
    },
}


def begun(net: nn.Module, method: str = "critical") -> nn.Module:
    """The net with every block's own start, children before parents."""
    for module in reversed(list(net.modules())):
        own = getattr(type(module), "initialise", None)
        if own is not None and method != "torch":
            own(module, Begin(method, depth=4, length=STEPS))
    return net.eval()


def run(block: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    takes = "mask" in inspect.signature(block.forward).parameters
    return block(x, mask) if takes else block(x)


def padded(ends: list[int], steps: int = STEPS) -> tuple[Tensor, Tensor]:
    real = torch.arange(steps) < torch.tensor(ends)[:, None]
    ids = torch.arange(1, steps + 1) * real
    return torch.randn(len(ends), steps, WIDTH), ids


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", STREAMS)
def test_forward_backward_copy_and_state(name, method):
    torch.manual_seed(0)
    block = begun(STREAMS[name](), method)
    x, ids = padded([STEPS, 4, 1])
    x.requires_grad_()
    out = run(block, x, ids)
    assert out.shape[:2] == x.shape[:2] and out.isfinite().all()
    (out * torch.randn_like(out)).sum().backward()
    assert x.grad.isfinite().all() and x.grad[0].abs().sum(-1).min() > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
    for other in (copy.deepcopy(block), STREAMS[name]()):
        other.load_state_dict(block.state_dict())
        torch.testing.assert_close(run(other.eval(), x, ids), out, rtol=0, atol=0)


@pytest.mark.parametrize("name", STREAMS)
@settings(max_examples=8, deadline=None)
@given(ends=st.lists(st.integers(1, STEPS), min_size=1, max_size=4), longer=st.integers(0, 5))
def test_padding_changes_nothing_at_real_positions(name, ends, longer):
    torch.manual_seed(0)
    block = begun(STREAMS[name]())
    x, ids = padded(ends)
    out = run(block, x, ids)
    more = torch.cat((x, torch.randn(len(ends), longer, WIDTH)), 1)
    ids = torch.cat((ids, ids.new_zeros(len(ends), longer)), 1)
    more = torch.where((ids != 0)[..., None], more, 100 * torch.randn_like(more))
    other = run(block, more, ids != 0)
    for row, end in enumerate(ends):
        torch.testing.assert_close(other[row, :end], out[row, :end], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STREAMS)
def test_nothing_but_padding_stays_finite(name):
    x, ids = padded([0, STEPS])
    x.requires_grad_()
    out = run(begun(STREAMS[name]()), x, ids)
    out.sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_later_token_changes_no_earlier_output(name, masked):
    torch.manual_seed(0)
    block = begun(STREAMS[name]())
    x, ids = padded([STEPS, STEPS])
    call = (lambda v: run(block, v, ids)) if masked else block
    changed = x.clone()
    changed[:, 5:] += 3
    before, after = call(x), call(changed)
    torch.testing.assert_close(after[:, :5], before[:, :5], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(after[:, 5:], before[:, 5:])


@pytest.mark.parametrize("name", ["attention", "two-way-gru", "post"])
def test_what_looks_both_ways_sees_later_tokens(name):
    block = begun(STREAMS[name]())
    x, _ = padded([STEPS])
    changed = x.clone()
    changed[:, -1] += 3
    assert not torch.allclose(block(x)[:, 0], block(changed)[:, 0])


@pytest.mark.parametrize(("how", "both"), READOUTS)
def test_a_readout_reads_real_steps_only(how, both):
    torch.manual_seed(0)
    x, ids = padded([STEPS, 4, 1])
    read = Readout(WIDTH, how, both)
    out = read(x, ids)
    half = WIDTH // 2 if both else WIDTH
    for row, end in enumerate((STEPS, 4, 1)):
        real = x[row, :end]
        last = torch.cat((real[-1, :half], real[0, half:]))
        wanted = {"last": last, "mean": real.mean(0), "max": real.amax(0)}
        wanted["mean-max"] = torch.cat((wanted["mean"], wanted["max"]))
        torch.testing.assert_close(out[row], wanted[how])
    torch.testing.assert_close(read(x), read(x, torch.ones(3, STEPS, dtype=torch.bool)))
    assert read(x, torch.zeros(3, STEPS, dtype=torch.bool)).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_translator_trains_and_translates(name, method):
    torch.manual_seed(0)
    net = begun(TRANSLATORS[name](), method)
    source, target = torch.randint(4, 20, (3, STEPS)), torch.randint(4, 30, (3, 6))
    source[1, 4:] = 0
    logits = net(source, target)
    assert logits.shape == (3, 6, 30)
    nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    other = TRANSLATORS[name]()
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(copy.deepcopy(other).eval()(source, target), logits, rtol=0, atol=0)


@pytest.mark.parametrize("name", TRANSLATORS)
def test_greedy_words_are_those_of_the_whole_decoder(name):
    torch.manual_seed(1)
    net = begun(TRANSLATORS[name]())
    source = torch.randint(4, 20, (4, STEPS))
    source[1, 4:] = 0
    said = net.translate(source, 7)
    assert not said.requires_grad and said.shape[1] <= 7
    before = torch.cat((torch.ones(4, 1, dtype=torch.long), said[:, :-1]), 1)
    wanted = net(source, before).argmax(-1)
    for row in range(4):
        over = (said[row] == 2).nonzero()
        end = int(over[0]) + 1 if len(over) else said.shape[1]
        assert said[row, :end].tolist() == wanted[row, :end].tolist()
        assert said[row, end:].eq(0).all()


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_translator_sees_no_padding_and_no_later_word(name):
    torch.manual_seed(0)
    net = begun(TRANSLATORS[name]())
    source, target = torch.randint(4, 20, (3, 5)), torch.randint(4, 30, (3, 6))
    logits = net(source, target)
    longer = torch.cat((source, source.new_zeros(3, 4)), 1)
    torch.testing.assert_close(net(longer, target), logits, rtol=1e-4, atol=1e-5)
    later = target.clone()
    later[:, 3:] = 7
    torch.testing.assert_close(net(source, later)[:, :3], logits[:, :3], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(net(source.flip(1), target), logits)


def test_translation_ends_where_every_sentence_has_ended():
    net = begun(TRANSLATORS["gru-none"]())
    with torch.no_grad():
        net.out.weight.zero_()
        net.out.bias.copy_(torch.eye(30)[2])
    assert net.translate(torch.randint(4, 20, (3, STEPS)), 9).tolist() == [[2]] * 3


def test_embeddings_pad_with_zero_scale_and_drop_words():
    torch.manual_seed(0)
    embed = Embedding(500, 64, scale=True)
    assert embed(torch.zeros(1, 3, dtype=torch.long)).abs().max() == 0
    power = embed(torch.arange(1, 500)[None]).square().mean().item()
    assert power == pytest.approx(1, rel=0.05)
    assert Embedding(500, 64, scale=True, std=0.1)(torch.arange(1, 500)[None]).std().item() == pytest.approx(
        0.1, rel=0.05
    )
    forgetful = Embedding(500, 8, word_dropout=1.0)
    unknown = forgetful.tokens.weight[3]
    assert forgetful(torch.tensor([[5, 0]])).eq(torch.stack((unknown, torch.zeros(8)))).all()
    assert forgetful.eval()(torch.tensor([[5]])).eq(forgetful.tokens.weight[5]).all()


def test_sinusoidal_positions_are_those_of_the_paper():
    out = Embedding(9, 6, "sinusoidal")(torch.zeros(1, 4, dtype=torch.long))[0]
    for place in range(4):
        for pair in range(3):
            angle = torch.tensor(place / 10_000 ** (2 * pair / 6))
            torch.testing.assert_close(out[place, 2 * pair], angle.sin(), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(out[place, 2 * pair + 1], angle.cos(), rtol=1e-5, atol=1e-6)


def test_a_tied_head_shares_the_table_also_after_its_start():
    embed, head = Embedding(20, WIDTH, scale=True), LanguageHead(WIDTH, 20)
    head.tie(embed)
    head.initialise(Begin())
    assert head.out.weight is embed.weight and embed.weight[0].abs().max() == 0
    with pytest.raises(ValueError, match="same width"):
        LanguageHead(8, 20).tie(embed)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Recurrent(4, cell="lstn"), "did you mean 'lstm'"),
        (lambda: Readout(4, "maen"), "did you mean 'mean'"),
        (lambda: Embedding(9, 4, "sinusoid"), "did you mean 'sinusoidal'"),
        (lambda: Embedding(9, 4, "learned"), "need a length"),
        (lambda: Embedding(9, 4, "learned", 3)(torch.ones(1, 4, dtype=torch.long)), "4 tokens"),
        (lambda: TransformerBlock(8, 2, place="psot"), "did you mean 'post'"),
        (lambda: TransformerBlock(8, 3), "3 heads do not divide"),
        (lambda: TransformerBlock(8, 2)(torch.randn(1, 2, 8), memory=torch.randn(1, 2, 8)), "cross=False"),
        (lambda: SequenceHead(4), "outputs or classes"),
        (lambda: RecurrentTranslator(9, 9, attention="bahdanu"), "did you mean 'bahdanau'"),
        (lambda: RecurrentTranslator(9, 9, cell="relu-rnn", attention="bahdanau"), "for a loop"),
    ],
)
def test_what_is_wrong_is_said(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_a_mask_of_floats_is_refused():
    with pytest.raises(TypeError, match="ambiguous"):
        MultiHeadAttention(8, 2)(torch.randn(1, 3, 8), torch.ones(1, 3))
