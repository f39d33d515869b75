"""`timm:NAME` and `hf:NAME` as a row: a published network whose maps, stage by stage, other rows read.

Notable:
- Both libraries run their own code, so they need the reader's word for it (`allow_code`), as a Python path.
- A row gives its maps as a list, finest first; a row `Level` picks one. One stage, as in `stages: 4`, is one.
- Its weights are drawn by the library, or loaded by it if the row says `pretrained: true`, and no `init:` of
  the file touches them. Saved weights hold them, so nothing is fetched again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unvanish.core.registry import suggest

LIBRARIES = {"timm": "timm", "hf": "transformers"}
USUAL = (-3, -2, -1)  # stages: for a detector, those of the strides 8, 16 and 32


class Backbone(nn.Module):
    """The maps of a network of another library: (B, width_in, H, W) to a list of (B, C, H / s, W / s)."""

    KIND: ClassVar[str] = ""
    NAME: ClassVar[str] = ""
    KEEPS_WEIGHTS: ClassVar[bool] = True

    def __init__(
        self,
        width_in: int,
        stages: Sequence[int] | int | None = None,
        pretrained: bool = False,
        size: int | tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.single = isinstance(stages, int)
        chosen = [stages] if isinstance(stages, int) else list(USUAL if stages is None else stages)
        if any(b <= a for a, b in pairwise(chosen)) or len({stage < 0 for stage in chosen}) != 1:
            raise ValueError(
                f"stages must rise, finest first, as [2, 3, 4] or [-3, -2, -1]; they are {chosen}"
            )
        real = torch.get_default_device().type != "meta"  # a draft needs no weights
        make = make_timm if self.KIND == "timm" else make_hf
        self.body = make(self.NAME, width_in, chosen, pretrained and real, size)
        form = getattr(self.body, "output_fmt", "NCHW")  # some networks of timm have their channels last
        self.channels_last = getattr(form, "value", form) == "NHWC"

    def forward(self, x: Tensor) -> Any:
        found = self.body(x)
        maps = [x.movedim(-1, 1) if self.channels_last else x for x in getattr(found, "feature_maps", found)]
        return maps[0] if self.single else maps

    def __reduce__(self) -> tuple[Any, ...]:
        return empty_backbone, (self.KIND, self.NAME), self.__dict__


@cache
def backbone_class(kind: str, name: str) -> type[Backbone]:
    """The class of a row `kind:name`; ValueError if the library is missing or does not know the name."""
    library = import_library(kind)
    if not name:
        raise ValueError(
            f"{kind}: names no network; write {kind}:{'resnet18' if kind == 'timm' else 'resnet'}"
        )
    if kind == "timm" and not library.is_model(name):
        raise ValueError(f"timm has no model {name!r}{suggest(name, library.list_models())}")
    if kind == "hf":
        read_config(library, name)  # what is wrong with it is said before anything is built
    return type("Backbone", (Backbone,), {"KIND": kind, "NAME": name, "__module__": __name__})


def empty_backbone(kind: str, name: str) -> Backbone:
    """A backbone without its state, for a copy or a pickle."""
    cls = backbone_class(kind, name)
    made: Backbone = cls.__new__(cls)
    nn.Module.__init__(made)
    return made


def import_library(kind: str) -> Any:
    """The library of a kind of backbones; ValueError if it is missing."""
    try:
        if kind == "timm":
            import timm

            return timm
        import transformers

        return transformers
    except Exception as error:  # an import may fail in any way
        first = (str(error).splitlines() or [type(error).__name__])[0][:120]
        absent = isinstance(error, ImportError) and error.name == LIBRARIES[kind]
        missing = "is not installed" if absent else f"cannot be imported ({first})"
        raise ValueError(f"{LIBRARIES[kind]} {missing}; pip install 'unvanish[{kind}]'") from error


def make_timm(name: str, width_in: int, stages: list[int], pretrained: bool, size: Any) -> nn.Module:
    """A timm network that gives the maps of its stages."""
    library = import_library("timm")
    options: dict[str, Any] = {"in_chans": width_in, "out_indices": tuple(stages), "pretrained": pretrained}
    about = library.get_pretrained_cfg(name)
    if size is not None and about is not None and about.fixed_input_size:
        options["img_size"] = size
    try:
        made: nn.Module = library.create_model(name, features_only=True, **options)
    except (RuntimeError, AttributeError, AssertionError, TypeError, IndexError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ValueError(f"timm:{name} gives no maps of the stages {stages} ({first})") from error
    return made


def make_hf(name: str, width_in: int, stages: list[int], pretrained: bool, size: Any) -> nn.Module:
    """A backbone of Transformers that gives the maps of its stages."""
    library = import_library("hf")
    config = read_config(library, name)
    count = len(config.stage_names)
    chosen = sorted(stage % count for stage in stages if -count <= stage < count)
    if len(chosen) < len(stages):
        raise ValueError(f"hf:{name} has the stages 0 to {count - 1}, not {stages}")
    config.out_indices = chosen
    for key, value in (("num_channels", width_in), ("image_size", size)):
        if value is not None and hasattr(config, key):
            setattr(config, key, value)
    if not pretrained:
        made: nn.Module = library.AutoBackbone.from_config(config)
        return made
    try:
        made = library.AutoBackbone.from_pretrained(name, config=config, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [""])[0][:160]
        raise ValueError(f"the weights of hf:{name} cannot be loaded: {first}") from error
    return made


def read_config(library: Any, name: str) -> Any:
    """The configuration of a Transformers backbone by its type, folder or name; ValueError if it has none."""
    try:
        if name in library.CONFIG_MAPPING:
            config = library.AutoConfig.for_model(name)
        else:
            config = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [""])[0][:160]
        raise ValueError(f"Transformers has no configuration for {name!r}: {first}") from error
    if type(config) not in library.MODEL_FOR_BACKBONE_MAPPING or not getattr(config, "stage_names", None):
        raise ValueError(
            f"hf:{name} is no backbone with stages; of those Transformers has resnet, convnext, swin,"
            " focalnet, dinov2 and others"
        )
    return config


def without_fetching(document: Any) -> Any:
    """The table of a network whose rows of other libraries draw their weights, as these are loaded anyway."""
    made = copy.deepcopy(dict(document))
    for part in ("layers", "backbone", "head"):
        for row in made.get(part) or ():
            module = row.get("module") if isinstance(row, dict) else row[2]
            if not is_backbone(module):
                continue
            if isinstance(row, dict):
                row.pop("pretrained", None)
                row["args"] = list(row.get("args", ()))[:1]
            elif len(row) > 3:
                row[3] = list(row[3])[:1]
    return made


def is_backbone(name: Any) -> bool:
    """Whether a row's module is a network of another library."""
    return isinstance(name, str) and name.partition(":")[0] in LIBRARIES and ":" in name
