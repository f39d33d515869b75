"""Image models: from LeNet to ConvNeXt, U-Net and the detectors' backbones, each after its paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architectures import Builder, Subject

CLASSES = 10


def he(module: nn.Module) -> nn.Module:
    """He initialisation in fan-out mode, as torchvision's and the papers' (He et al. 2015)."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    return module


def unit(
    c_in: int, c_out: int, k: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU
) -> nn.Sequential:
    """Convolution, BatchNorm, activation."""
    conv = nn.Conv2d(c_in, c_out, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), *([act()] if act else []))


def classifier(features: Sequence[nn.Module], width: int) -> nn.Sequential:
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def lenet() -> nn.Module:
    """LeCun et al. 1998."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh()),
        *(nn.AvgPool2d(2), nn.Flatten(), nn.LazyLinear(120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh()),
        nn.Linear(84, CLASSES),
    )


def alexnet() -> nn.Module:
    """Krizhevsky et al. 2012, initialised as He et al. 2015; PyTorch's default loses two decades."""
    convs = [(3, 24, 5), (24, 64, 5), (64, 96, 3), (96, 64, 3), (64, 64, 3)]
    parts: list[nn.Module] = []
    for i, (a, b, k) in enumerate(convs):
        parts += [
            nn.Conv2d(a, b, k, padding=k // 2),
            nn.ReLU(True),
            *([nn.MaxPool2d(2)] if i in (0, 1, 4) else []),
        ]
    first, second = nn.Linear(1024, 256), nn.Linear(256, 256)
    head = [nn.Flatten(), nn.Dropout(), first, nn.ReLU(True), nn.Dropout(), second, nn.ReLU(True)]
    net = he(nn.Sequential(*parts, *head, nn.Linear(256, CLASSES)))
    for layer in (first, second):
        nn.init.kaiming_normal_(layer.weight)
    return net


def vgg(norm: bool, plan: str = "64 64 M 128 128 M 256 256 256 M 512 512 512") -> nn.Module:
    """Simonyan and Zisserman 2015 (VGG-13 and 16), a quarter of the width, He initialised."""
    parts: list[nn.Module] = []
    width = 3
    for item in plan.split():
        if item == "M":
            parts.append(nn.MaxPool2d(2))
            continue
        out = int(item) // 4
        parts += [
            nn.Conv2d(width, out, 3, padding=1),
            *([nn.BatchNorm2d(out)] if norm else []),
            nn.ReLU(True),
        ]
        width = out
    return he(classifier(parts, width))


class Residual(nn.Module):
    """A residual block: basic or bottleneck, groups, squeeze-and-excitation, pre-activation."""

    def __init__(
        self, c: int, out: int, stride: int = 1, bottleneck: int = 0, groups: int = 1, se: bool = False
    ) -> None:
        super().__init__()
        if bottleneck:
            self.body = nn.Sequential(
                unit(c, bottleneck, 1),
                unit(bottleneck, bottleneck, 3, stride, groups),
                unit(bottleneck, out, 1, act=None),
            )
        else:
            self.body = nn.Sequential(unit(c, out, 3, stride), unit(out, out, act=None))
        self.se = Squeeze(out) if se else nn.Identity()
        self.skip = nn.Identity() if c == out and stride == 1 else unit(c, out, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.se(self.body(x)) + self.skip(x))


class Squeeze(nn.Module):
    """Hu et al. 2018."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(c, max(4, c // 4), 1), nn.Conv2d(max(4, c // 4), c, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


def resnet(
    layers: Sequence[int], bottleneck: bool = False, width: int = 16, groups: int = 1, se: bool = False
) -> nn.Module:
    """He et al. 2016; Xie et al. 2017 with groups; Hu et al. 2018 with se; Zagoruyko 2016 with width."""
    parts: list[nn.Module] = [unit(3, width)]
    c = width
    for stage, blocks in enumerate(layers):
        for block in range(blocks):
            inner = width * 2**stage
            out = inner * 4 if bottleneck else inner
            parts.append(
                Residual(c, out, 2 if block == 0 and stage else 1, inner if bottleneck else 0, groups, se)
            )
            c = out
    return he(classifier(parts, c))


class PreActivation(nn.Module):
    """He et al. 2016 (identity mappings)."""

    def __init__(self, c: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.norm, self.first = nn.BatchNorm2d(c), nn.Conv2d(c, out, 3, stride, 1, bias=False)
        self.norm2, self.second = nn.BatchNorm2d(out), nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.skip = nn.Identity() if c == out and stride == 1 else nn.Conv2d(c, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(F.relu(self.norm(x)))
        return self.skip(x) + self.second(F.relu(self.norm2(y)))


def preact(blocks: int) -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    c = 16
    for out in (16, 32, 64):
        for i in range(blocks):
            parts.append(PreActivation(c, out, 2 if i == 0 and out > 16 else 1))
            c = out
    return he(classifier([*parts, nn.BatchNorm2d(c), nn.ReLU()], c))


class Dense(nn.Module):
    """Huang et al. 2017."""

    def __init__(self, c: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c),
            nn.ReLU(),
            nn.Conv2d(c, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet() -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    c = 16
    for stage in range(3):
        for _ in range(6):
            parts.append(Dense(c, 8))
            c += 8
        if stage < 2:
            parts += [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1, bias=False), nn.AvgPool2d(2)]
            c //= 2
    return he(classifier([*parts, nn.BatchNorm2d(c), nn.ReLU()], c))


class Inception(nn.Module):
    """Szegedy et al. 2015, with BatchNorm."""

    def __init__(self, c: int, a: int, b: int, d: int, e: int) -> None:
        super().__init__()
        self.ways = nn.ModuleList(
            [
                unit(c, a, 1),
                nn.Sequential(unit(c, b // 2, 1), unit(b // 2, b)),
                nn.Sequential(unit(c, d // 2, 1), unit(d // 2, d, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(c, e, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([way(x) for way in self.ways], 1)


def googlenet() -> nn.Module:
    parts: list[nn.Module] = [unit(3, 32), nn.MaxPool2d(2)]
    c = 32
    for i in range(9):
        parts.append(Inception(c, 16, 32, 8, 8))
        c = 64
        if i in (1, 6):
            parts.append(nn.MaxPool2d(2))
    return he(classifier(parts, c))


class Fire(nn.Module):
    """Iandola et al. 2016."""

    def __init__(self, c: int, squeeze: int, out: int) -> None:
        super().__init__()
        self.squeeze, self.one = nn.Conv2d(c, squeeze, 1), nn.Conv2d(squeeze, out // 2, 1)
        self.three = nn.Conv2d(squeeze, out // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


def squeezenet() -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, 48, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2)]
    c = 48
    for i, (s, out) in enumerate(
        [(8, 64), (8, 64), (16, 128), (16, 128), (24, 192), (24, 192), (32, 256), (32, 256)]
    ):
        parts.append(Fire(c, s, out))
        c = out
        if i == 3:
            parts.append(nn.MaxPool2d(2))
    net = nn.Sequential(*parts, nn.Dropout(), nn.Conv2d(c, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for m in net.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_uniform_(m.weight)
            nn.init.zeros_(m.bias)  # type: ignore[arg-type]
    return net


class Inverted(nn.Module):
    """Sandler et al. 2018; with squeeze and another activation Howard et al. 2019 and Tan and Le 2019."""

    def __init__(self, c: int, out: int, stride: int, t: int, se: bool, act: Any) -> None:
        super().__init__()
        inner = c * t
        self.expand, self.depth = unit(c, inner, 1, act=act), unit(inner, inner, 3, stride, inner, act=act)
        self.se, self.project = Squeeze(inner) if se else nn.Identity(), unit(inner, out, 1, act=None)
        self.same = c == out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.se(self.depth(self.expand(x))))
        return x + y if self.same else y


def mobile(se: bool, act: Any, t: int = 6) -> nn.Module:
    parts: list[nn.Module] = [unit(3, 16, act=act)]
    c = 16
    for out, n, stride in ((16, 2, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1)):
        for i in range(n):
            parts.append(Inverted(c, out, stride if i == 0 else 1, t, se, act))
            c = out
    return he(classifier([*parts, unit(c, 192, 1, act=act)], 192))


def mobilenet1() -> nn.Module:
    """Howard et al. 2017."""
    parts: list[nn.Module] = [unit(3, 16)]
    c = 16
    for out, stride in (
        (32, 1),
        (64, 2),
        (64, 1),
        (128, 2),
        (128, 1),
        (128, 1),
        (128, 1),
        (256, 2),
        (256, 1),
    ):
        parts += [unit(c, c, 3, stride, c), unit(c, out, 1)]
        c = out
    return he(classifier(parts, c))


class Shuffle(nn.Module):
    """Ma et al. 2018, stride 1."""

    def __init__(self, c: int) -> None:
        super().__init__()
        h = c // 2
        self.body = nn.Sequential(unit(h, h, 1), unit(h, h, 3, groups=h, act=None), unit(h, h, 1))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        y = torch.cat([a, self.body(b)], 1)
        return y.view(len(y), 2, -1, *y.shape[2:]).transpose(1, 2).flatten(1, 2)


def shufflenet() -> nn.Module:
    parts = [
        unit(3, 48),
        *(Shuffle(48) for _ in range(4)),
        unit(48, 96, 3, 2),
        *(Shuffle(96) for _ in range(8)),
    ]
    return he(classifier(parts, 96))


class ConvNextBlock(nn.Module):
    """Liu et al. 2022, with its layer scale of 1e-6."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c)
        self.up, self.down = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)
        self.gamma = nn.Parameter(1e-6 * torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    parts: list[nn.Module] = [nn.Conv2d(3, 32, 4, 4), *(ConvNextBlock(32) for _ in range(3))]
    parts += [nn.Conv2d(32, 64, 2, 2), *(ConvNextBlock(64) for _ in range(9))]
    net = classifier(parts, 64)
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(m.weight, std=0.02)
            nn.init.zeros_(m.bias)  # type: ignore[arg-type]
    return net


class UNet(nn.Module):
    """Ronneberger et al. 2015; with BatchNorm as nearly everybody uses it, or without, He initialised."""

    def __init__(self, norm: bool = True, width: int = 8, levels: int = 4) -> None:
        super().__init__()
        sizes = [width * 2**i for i in range(levels)]

        def two(a: int, b: int) -> nn.Sequential:
            parts: list[nn.Module] = []
            for i, o in ((a, b), (b, b)):
                parts += [
                    nn.Conv2d(i, o, 3, padding=1),
                    *([nn.BatchNorm2d(o)] if norm else []),
                    nn.ReLU(True),
                ]
            return nn.Sequential(*parts)

        self.down = nn.ModuleList(two(a, b) for a, b in zip([3, *sizes], sizes, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairwise(sizes))
        self.join = nn.ModuleList(two(2 * a, a) for a in sizes[:-1])
        self.head = nn.Conv2d(width, CLASSES, 1)
        he(self)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for i, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if i else x)
            kept.append(x)
        for i in reversed(range(len(self.up))):
            x = self.join[i](torch.cat([kept[i], self.up[i](x)], 1))
        return self.head(x)


class Pyramid(nn.Module):
    """A feature pyramid over a ResNet, with a head shared by all levels (Lin et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(Residual(16 * 2**i, 32 * 2**i, 2), Residual(32 * 2**i, 32 * 2**i))
                for i in range(3)
            ]
        )
        self.side = nn.ModuleList([nn.Conv2d(32 * 2**i, 32, 1) for i in range(3)])
        self.head = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, CLASSES, 3, padding=1)
        )
        he(self)
        nn.init.normal_(self.head[2].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.constant_(self.head[2].bias, -4.6)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> list[Tensor]:
        x, found = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        top: Any = None
        out = []
        for side, level in reversed(list(zip(self.side, found, strict=True))):
            top = side(level) if top is None else side(level) + F.interpolate(top, scale_factor=2)
            out.append(self.head(top))
        return out


def levels_loss(output: list[Tensor], y: Tensor) -> Tensor:
    """Binary cross-entropy at every level against sparse positives."""
    return torch.stack(
        [F.binary_cross_entropy_with_logits(o, (torch.rand_like(o) > 0.97).float()) for o in output]
    ).mean()


def images(build: Callable[[], nn.Module], size: int = 32, batch: int = 16) -> Subject:
    """A classifier on random images."""
    model, x = build(), torch.randn(batch, 3, size, size)
    with torch.no_grad():
        model.eval()(x[:1])  # gives lazy layers their shape
    return Subject(model.train(), (x, torch.randint(0, CLASSES, (batch,))), nn.CrossEntropyLoss())


def maps(build: Callable[[], nn.Module]) -> Subject:
    return Subject(
        build(), (torch.randn(4, 3, 32, 32), torch.randint(0, CLASSES, (4, 32, 32))), nn.CrossEntropyLoss()
    )


CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "LeNet-5": lenet,
    "AlexNet (He)": alexnet,
    "VGG-13 (He)": partial(vgg, False),
    "VGG-13-BN": partial(vgg, True),
    "ResNet-18": partial(resnet, (2, 2, 2, 2)),
    "ResNet-50": partial(resnet, (3, 4, 6, 3), True),
    "ResNet-110 (CIFAR)": partial(resnet, (18, 18, 18)),
    "Wide ResNet-16-4": partial(resnet, (2, 2, 2), width=64),
    "ResNeXt-50": partial(resnet, (3, 4, 6, 3), True, 16, 8),
    "SE-ResNet-50": partial(resnet, (3, 4, 6, 3), True, 16, 1, True),
    "PreAct-ResNet-56": partial(preact, 9),
    "DenseNet": densenet,
    "GoogLeNet-BN": googlenet,
    "SqueezeNet": squeezenet,
    "MobileNet v1": mobilenet1,
    "MobileNet v2": partial(mobile, False, nn.ReLU6),
    "MobileNet v3": partial(mobile, True, nn.Hardswish),
    "EfficientNet": partial(mobile, True, nn.SiLU),
    "ShuffleNet v2": shufflenet,
    "ConvNeXt": convnext,
}
BUILDERS: dict[str, Builder] = {
    **{name: partial(images, build) for name, build in CLASSIFIERS.items()},
    "U-Net": partial(maps, UNet),
    "U-Net without norm": partial(maps, partial(UNet, False)),
    "FPN detector": lambda: Subject(Pyramid(), (torch.randn(4, 3, 64, 64), torch.zeros(4)), levels_loss),
}
