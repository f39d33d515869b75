"""The transformer block against PyTorch's own, DeepNorm's constants, and depth."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unvanish.lab.models.blocks.attention import MultiHeadAttention
from unvanish.lab.models.blocks.transformer import PLACES, TransformerBlock, deepnorm
from unvanish.lab.models.blocks.transformer_translator import TransformerTranslator
from unvanish.lab.models.initialise import Begin


def as_torch(part: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    layers = (part.q, part.k, part.v)
    theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
    theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    theirs.out_proj.load_state_dict(part.out.state_dict())


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("cross", [False, True])
def test_it_computes_what_pytorch_s_layers_do(place, cross):
    torch.manual_seed(0)
    kind = nn.TransformerDecoderLayer if cross else nn.TransformerEncoderLayer
    theirs = kind(16, 4, 24, 0.0, "gelu", batch_first=True, norm_first=place == "pre")
    block = TransformerBlock(16, 4, 24, place, cross=cross, causal=cross)
    with torch.no_grad():
        as_torch(block.attention.part, theirs.self_attn)
        theirs.linear1.load_state_dict(block.feedforward.part.up.state_dict())
        theirs.linear2.load_state_dict(block.feedforward.part.down.state_dict())
        if cross:
            as_torch(block.cross.part, theirs.multihead_attn)
    x, memory = torch.randn(3, 6, 16), torch.randn(3, 9, 16)
    real = torch.arange(9) < torch.tensor([[9], [4], [1]])
    if cross:
        future = torch.ones(6, 6, dtype=torch.bool).triu(1)
        wanted = theirs(x, memory, tgt_mask=future, memory_key_padding_mask=~real)
        found = block(x, None, memory, real)
    else:
        wanted, found = theirs(memory, src_key_padding_mask=~real), block(memory, real)
        wanted, found = wanted[real], found[real]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_deepnorm_s_constants_are_those_of_the_paper():
    (alpha, beta), _ = deepnorm(encoder=18)
    assert alpha == pytest.approx(36**0.25) and beta == pytest.approx(144**-0.25)
    assert deepnorm(decoder=18)[1] == deepnorm(encoder=18)[0]
    encoder, decoder = deepnorm(6, 6)  # 6L-6L
    assert encoder == pytest.approx((0.81 * (6**4 * 6) ** (1 / 16), 0.87 * (6**4 * 6) ** (-1 / 16)))
    assert decoder == pytest.approx((18**0.25, 72**-0.25))


def test_deepnorm_s_weights_and_skips_carry_them():
    torch.manual_seed(0)
    block = TransformerBlock(256, 4, 256, "deepnorm", depth=36)
    block.initialise(Begin(depth=36))
    assert block.attention.alpha == block.feedforward.alpha == pytest.approx(36**0.25)
    xavier = 1 / math.sqrt(256)
    part, feed = block.attention.part, block.feedforward.part
    for layer, gain in ((part.q, 1), (part.k, 1), *((x, 144**-0.25) for x in (part.v, part.out, feed.up))):
        assert layer.weight.std().item() == pytest.approx(gain * xavier, rel=0.02)
    net = TransformerTranslator(9, 9, 16, 2, 16, layers=4, place="deepnorm")
    assert net.encoder[0].attention.alpha == pytest.approx(0.81 * (4**5) ** (1 / 16))
    assert net.decoder[0].cross.alpha == pytest.approx(12**0.25)


@pytest.mark.parametrize("place", PLACES)
def test_a_critical_start_holds_the_stream_s_power(place):
    torch.manual_seed(0)
    blocks = [TransformerBlock(64, 4, place=place, depth=48) for _ in range(24)]
    x = torch.randn(4, 16, 64)
    for block in blocks:
        block.initialise(Begin(depth=48))
        x = block(x)
    assert 0.8 < x.square().mean() < 2.5


def test_the_pre_norm_skip_carries_the_gradient_through_depth():
    torch.manual_seed(0)
    blocks = nn.Sequential(*(TransformerBlock(32, 4, depth=96) for _ in range(48)))
    for block in blocks:
        block.initialise(Begin(depth=96))
    x = torch.randn(4, 8, 32, requires_grad=True)
    out = blocks(x)
    seed = torch.randn_like(out)
    (out * seed).sum().backward()
    assert 0.3 < x.grad.norm() / seed.norm() < 3


def test_normalised_queries_and_keys_bound_the_logits():
    torch.manual_seed(0)
    plain, normed = (MultiHeadAttention(16, 2, qk_norm=flag) for flag in (False, True))
    x = torch.randn(2, 7, 16)
    for net in (plain, normed):
        with torch.no_grad():
            net.q.weight.mul_(100)
    norm = normed.q_norm(normed._split(normed.q(x))).norm(dim=-1)
    torch.testing.assert_close(norm, torch.full_like(norm, 8**0.5), rtol=1e-3, atol=1e-3)
    assert plain._split(plain.q(x)).norm(dim=-1).min() > 20
