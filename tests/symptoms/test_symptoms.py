"""Each symptom has a page of the same parts, names rules that exist, and is found by the words people use."""

from __future__ import annotations

import re

import pytest

from unvanish.cures import cures
from unvanish.rules import rules
from unvanish.symptoms import find_symptoms, read_symptom, split_words, symptoms

PAGES = list(symptoms().values())
HEADS = ["Where to look, in this order", "One command", "The cure", "When it is normal"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_its_parts_and_names_rules_that_exist(page):
    assert re.findall(r"^## (.*)$", page.page, re.MULTILINE) == HEADS
    assert set(page.codes) <= set(rules()) and len(page.codes) >= 3
    for code, name in re.findall(r"\b([A-Z]{3}\d{3}) ([a-z]+(?:-[a-z]+)+)", page.page):
        assert rules()[code].name == name or name not in {r.name for r in rules().values()}
    assert all(len(line) <= 220 for line in page.page.splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_commands_and_cures_that_exist(page):
    demos = re.findall(r"`unvanish demo ([A-Z]{3}\d{3})`", page.page)
    assert demos and set(demos) <= set(page.codes)
    verbs = set(re.findall(r"`unvanish ([a-z]+)", page.page))
    assert verbs <= {"check", "run", "show", "demo", "forecast", "cure", "explain"}
    named = re.findall(r"\(`([a-z]+-[a-z0-9-]+)`\)", page.page)
    assert set(named) <= set(cures())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("loss is nan", "loss-is-nan"),
        ("why does my loss become inf?", "loss-is-nan"),
        ("training loss not decreasing", "loss-does-not-fall"),
        ("the loss is stuck", "loss-does-not-fall"),
        ("gradients vanish in early layers", "gradient-norm-is-zero"),
        ("vanishing gradient", "gradient-norm-is-zero"),
        ("exploding gradients", "gradient-norm-explodes"),
        ("all my gradients are None", "gradient-norm-is-zero"),
        ("loss spikes after 1000 steps", "falls-then-spikes"),
        ("accuracy stuck at 50%", "accuracy-at-chance"),
        ("always predicts the same class", "accuracy-at-chance"),
        ("mixed precision with GradScaler fails", "half-precision"),
        ("LSTM on long sequences", "recurrent-forgets"),
        ("transformer needs warmup", "deep-transformer-needs-warm-up"),
        ("fine-tuning a pretrained model", "fine-tuning-does-not-move"),
        ("DDP with two gpus differs", "two-gpus-differ-from-one"),
        ("GAN mode collapse", "generator-learns-nothing"),
        ("PINN boundary", "physics-informed-net"),
        ("peft adapter", "lora-does-not-learn"),
        ("same loss at every step from the beginning", "flat-from-step-0"),
    ],
)
def test_a_page_is_found_by_the_words_of_who_has_it(words, name):
    assert find_symptoms(words)[0].name == name


def test_words_without_a_page_find_none():
    assert find_symptoms("purple bicycles") == find_symptoms("is it the") == find_symptoms("") == []


def test_endings_and_small_words_do_not_count():
    assert split_words("The gradients are vanishing") == split_words("a gradient vanishes")


@pytest.mark.parametrize("text", ["", "no title\nwords: a\n", "# title\nno words\n"])
def test_a_page_without_title_or_words_is_refused(text):
    with pytest.raises(ValueError, match="begins with no title and words"):
        read_symptom("a", text)
