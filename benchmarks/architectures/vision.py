"""Published vision architectures from timm, at their own initialisation; timm is imported only when asked.

Notable: the smallest published size of each family, ten classes, random weights, four random images. An input
is as small as the architecture takes it: 64 x 64, or the size its windows and position tables are made for.
"""

from __future__ import annotations

import importlib.util
from functools import partial

import torch
from torch import nn

from benchmarks.architectures import Builder, Subject

SIZES = {
    "resnet18": 64, "resnext50_32x4d": 64, "seresnet18": 64, "densenet121": 64, "efficientnet_b0": 64,
    "mobilenetv3_small_100": 64, "mobilenetv2_100": 64, "convnext_atto": 64, "convnextv2_atto": 64,
    "vit_tiny_patch16_224": 224, "deit_tiny_patch16_224": 224, "deit3_small_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224, "mixer_s32_224": 224, "resmlp_12_224": 224, "gmlp_ti16_224": 224,
    "regnetx_002": 64, "regnety_002": 64, "ghostnet_100": 64, "repvgg_a0": 64, "maxvit_rmlp_pico_rw_256": 256,
    "coatnet_pico_rw_224": 224, "levit_128s": 224, "beit_base_patch16_224": 224, "cait_xxs24_224": 224,
    "pvt_v2_b0": 64, "poolformer_s12": 64, "efficientformer_l1": 224, "dm_nfnet_f0": 64, "nf_resnet50": 64,
    "hrnet_w18_small": 64, "inception_v3": 96, "xception41": 96, "dla34": 64, "vgg11": 64, "vgg11_bn": 64,
    "edgenext_xx_small": 64, "mobilevit_xxs": 64, "rexnet_100": 64, "tinynet_e": 64, "mnasnet_small": 64,
    "crossvit_tiny_240": 240, "twins_pcpvt_small": 224, "xcit_nano_12_p16_224": 224, "visformer_tiny": 224,
    "fastvit_t8": 64, "mambaout_femto": 64, "eva02_tiny_patch14_224": 224, "focalnet_tiny_srf": 64,
    "sequencer2d_s": 224, "volo_d1_224": 224, "darknet53": 64, "cspresnet50": 64, "selecsls42b": 64,
}  # fmt: skip


def importable() -> bool:
    """Whether timm is installed."""
    return importlib.util.find_spec("timm") is not None


def builders() -> dict[str, Builder]:
    """Every architecture of the table that this timm knows, by the name `timm:NAME`."""
    import timm

    known = set(timm.list_models())
    return {f"timm:{name}": partial(built, name, size) for name, size in SIZES.items() if name in known}


def built(name: str, size: int) -> Subject:
    """One architecture, with four images of this size and ten classes."""
    import timm

    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=10)
    batch = torch.randn(4, 3, size, size), torch.randint(0, 10, (4,))
    return Subject(model.train(), batch, nn.CrossEntropyLoss())
