"""The data YAML: read as its users write it, and wrong ones refused with file, line and the nearest right
word.
"""

from __future__ import annotations

import pytest

from unvanish.lab.data.problems import DataError
from unvanish.lab.data.spec import read

YOLO = """path: coco128
train: images/train2017
val: images/train2017
names:
  0: person
  1: bicycle
download: https://example.org/coco128.zip
"""


def written(tmp_path, text):
    file = tmp_path / "my.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_yaml_as_yolo_users_write_it(tmp_path):
    spec = read(written(tmp_path, YOLO))
    assert spec.kind.name == "yolo" and spec.task == "detect" and spec.names == ("person", "bicycle")
    assert spec.path == ("coco128",) and spec.parts["val"] == ("images/train2017",)
    assert spec.download[0].to == "coco128.zip" and not spec.download[0].checksum


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: digits\ncropp: 1", r"my.yaml:2: no key 'cropp' \(did you mean 'crop'\?\)"),
        ("kind: digit", r"my.yaml:1: no kind 'digit' \(did you mean 'digits'\?\)"),
        (
            "kind: digits\ntask: translate",
            "my.yaml:2: data of kind 'digits' are for classify, not for 'translate'",
        ),
        ("kind: digits\ntask: clasify", "my.yaml:2: no task 'clasify'.*'classify'"),
        ("kind: digits\nkind: adding", "my.yaml:2: 'kind' is given twice .first on line 1"),
        ("kind: adding\nlength: long", "my.yaml:2: length must be a whole number"),
        ("kind: adding\nlength: true", "my.yaml:2: length must be a whole number"),
        ("kind: digits\nnc: 3\nnames: [a, b]", "my.yaml:2: nc is 3, but there are 2 names"),
        ("kind: digits\nnames: {1: a, 2: b}", "my.yaml:2: names must count from 0"),
        ("kind: digits\nnc: many", "my.yaml:2: nc must be the number of classes"),
        ("train: 7\nnc: 2", "my.yaml:1: train must be a path"),
        ("- 1\n- 2", "must contain keys and values"),
        ("a: [", "my.yaml:2: this is not YAML"),
        ("kind: digits\ndownload: |\n  import os\n  os.remove('x')", "scripts in a YAML are never run"),
        ("kind: digits\ndownload: file:///etc/passwd", "not an http"),
        ("kind: digits\ndownload: {url: 'https://a.b/c', sha: x}", "no key 'sha'"),
        ("kind: digits\ndownload: {url: 'https://a.b/c', to: ../x}", "must stay inside"),
        ("kind: digits\nx: !!python/object/apply:os.system ['true']", "my.yaml:2: the tag .* is refused"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text, told):
    with pytest.raises(DataError, match=told):
        read(written(tmp_path, text))


def test_settings_overrule_the_yaml_and_are_checked(tmp_path):
    assert read("adding.yaml", length=50).settings["length"] == 50
    with pytest.raises(DataError, match=r"open_data: no key 'lenght'.*'length'"):
        read("adding", lenght=50)


def test_an_unknown_set_is_told_the_nearest():
    with pytest.raises(DataError, match=r"no data set 'cifar11.yaml' \(did you mean 'cifar10'"):
        read("cifar11.yaml")
