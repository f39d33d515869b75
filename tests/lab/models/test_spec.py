"""Reading a model: keys, rows, sources, scales, overrides; and every error's place."""

from __future__ import annotations

import subprocess
import sys

import pytest

from unvanish.lab.models import SpecError, build, read

SMALL = """\
task: classify
classes: 3
layers:
  - {name: stem, module: Conv, out: 8}
  - {name: more, module: Conv, out: 8, repeats: 2}
  - {name: both, module: Concat, from: [stem, more]}
  - {name: head, module: ClassifyHead}
"""
CLASSIC = """\
nc: 80
scales:
  n: [0.50, 0.25, 1024]
  m: [0.50, 1.00, 512]
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 6, Conv, [128, 3]]
head:
  - [-1, 1, nn.Upsample, [None, 2, "nearest"]]
  - [[-1, 0], 1, Concat, [1]]
  - [-1, 1, ClassifyHead, [nc]]
"""


@pytest.fixture
def write(tmp_path):
    def writes(text, name="net.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return writes


def test_our_rows(write):
    spec = read(write(SMALL))
    assert [row.name for row in spec.layers] == ["stem", "more", "both", "head"]
    assert [row.sources for row in spec.layers] == [(-1,), (0,), (0, 1), (2,)]
    assert spec.layers[1].repeats == 2
    assert spec.layers[0].settings == {"out": 8}
    assert (spec.name, spec.task, spec.init, spec.activation) == ("net", "classify", "critical", None)


def test_classic_rows(write):
    write(CLASSIC, "tiny11.yaml")
    path = write("", "other.yaml").parent / "tiny11m.yaml"
    spec = read(path)
    assert (spec.scale.name, spec.scale.width, spec.scale.most) == ("m", 1.0, 512)
    assert spec.name == "tiny11m"
    assert spec.facts == {"classes": 80}
    assert [row.repeats for row in spec.layers] == [1, 3, 1, 1, 1]
    assert [row.sources for row in spec.layers] == [(-1,), (0,), (1,), (2, 0), (3,)]
    assert spec.layers[2].args == (None, 2, "nearest")
    assert read(path.with_name("tiny11.yaml")).scale.name == "n"


def test_a_scale_before_a_dash(write):
    path = write(CLASSIC, "tiny11-cls.yaml")
    assert read(path.with_name("tiny11m-cls.yaml")).scale.name == "m"
    assert read(path.with_name("tiny11m-cls.yaml")).name == "tiny11m-cls"


def test_scales_that_set_keys():
    spec = read("resnet56.yaml")
    assert (spec.name, spec.numbers["depth"], spec.layers[1].repeats) == ("resnet56", 9, 9)
    assert read("resnet56", depth=2).layers[1].repeats == 2


def test_overrides_are_top_level_keys():
    spec = read("resnet20.yaml", activation="gelu", init="he", nc=7, norm="layer")
    assert (spec.activation, spec.init, spec.norm) == ("gelu", "he", "layer")
    assert spec.facts["classes"] == 7
    with pytest.raises(SpecError, match=r"no key 'activaton' \(did you mean 'activation'\?\)"):
        read("resnet20.yaml", activaton="gelu")


@pytest.mark.parametrize("name", ["resnet56", "vit-tiny", "vanilla"])
def test_a_spec_is_read_back_from_its_document(name):
    spec = read(name, classes=5, init="he")
    again = read(spec.document)
    assert (again.name, again.layers[1].repeats) == (spec.name, spec.layers[1].repeats)
    assert (again.facts, again.init, again.scale) == (spec.facts, "he", spec.scale)
    if "depth" in spec.numbers:
        assert read(read(name, depth=4).document).numbers["depth"] == 4


def test_reading_needs_no_torch():
    code = (
        "import sys; from unvanish.lab.models import read; read('resnet20'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("task:", "tusk:", 1, "no key 'tusk' (did you mean 'task'?)"),
        ("task: classify", "task: clasify", 1, "no task 'clasify' (did you mean 'classify'?)"),
        ("classes: 3", "classes: many", 2, "classes must be a whole number"),
        ("classes: 3", "init: critcal", 2, "no init 'critcal' (did you mean 'critical'?)"),
        ("classes: 3", "activation: 3", 2, "activation must be a word"),
        ("module: Conv, out: 8}", "modul: Conv, out: 8}", 4, "has no module (did you mean 'module'"),
        ("[stem, more]", "[stem, moer]", 6, "no layer has this name (did you mean 'more'?)"),
        ("[stem, more]", "[stem, head]", 6, "layer 3, which comes later"),
        ("[stem, more]", "both", 6, "that is itself"),
        ("[stem, more]", "7", 6, "there are only layers 0 to 3"),
        ("[stem, more]", "[]", 6, "from is an empty list"),
        ("repeats: 2", "repeats: two", 5, "repeats must be a whole number from 1 (or one of classes)"),
        ("repeats: 2", "repeats: 0", 5, "repeats must be a whole number from 1, it is 0"),
        ("name: more", "name: stem", 5, "two layers are called 'stem', the first on line 4"),
        ("name: more", "name: a.b", 5, "'a.b' is not a valid name"),
        ("name: stem", "name: image", 4, "is the name of the net's input"),
        ("- {name: head, module: ClassifyHead}", "- [-1, 1]", 7, "[from, repeats, module, args]"),
        ("layers:", "rows:", 3, "no key 'rows'"),
        ("layers:", "scales: [1]\nlayers:", 3, "scales must map names"),
        ("module: ClassifyHead", "module: ClassifyHead, args: 3", 7, "args must be a list"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(write, old, new, line, told):
    assert old in SMALL
    path = write(SMALL.replace(old, new, 1))
    with pytest.raises(SpecError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert told in str(error.value)


def test_a_scale_that_does_not_exist(write):
    path = write(CLASSIC)
    with pytest.raises(SpecError, match="no scale 'l'; there are n, m"):
        read(path, scale="l")
    with pytest.raises(SpecError, match=r"must be .depth, width, most channels."):
        read(write(CLASSIC.replace("[0.50, 0.25, 1024]", "[0.5]")))


def test_an_unknown_model_suggests_one():
    with pytest.raises(SpecError, match=r"there is no such model \(did you mean 'resnet20'\?\)"):
        read("resnt20.yaml")


def test_no_rows():
    with pytest.raises(SpecError, match="rows belong under `layers:`"):
        read({"task": "classify"})


@pytest.mark.parametrize("name", ["/", ".", ""])
def test_a_folder_is_no_model(name):
    with pytest.raises(SpecError, match="folder"):
        read(name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"anchors": [[10, 13]]}, "anchors: a head with anchors is not there"),
        ({"kpt_shape": [17, 3]}, "poses are not there; the heads are Detect"),
        ({"end2end": True}, "a head without suppression is not there"),
        ({"head": [[[-1], 1, "OBB", ["nc", 1]]]}, "OBB, oriented boxes, is not there; the heads are"),
        ({"head": [[[-1], 1, "v10Detect", ["nc"]]]}, "v10Detect, a head without suppression, is not there"),
    ],
)
def test_what_other_networks_have_is_named(change, told):
    table = {"nc": 3, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[-1], 1, "Detect", ["nc"]]]}
    with pytest.raises(SpecError) as error:
        build({**table, **change}, size=64)
    assert told in str(error.value) and "\n" not in str(error.value)
