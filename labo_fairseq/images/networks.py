"""The networks of the paper's image experiments, for images of 32 × 32 pixels or so and for those of ImageNet.

ResNet (He et al., 2016), ResNeXt (Xie et al., 2017) and MobileNetV2 (Sandler et al., 2018). Those for small images have
a 3×3 stem of stride 1 without pooling, as the code that the paper compares with has them.
"""

import importlib
import inspect
import os
import sys
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Type

from torch import Tensor, nn

from ..errors import UserError


def _conv(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=bias)


class _Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a projection where the shape changes."""

    #: outputs per unit of width
    expansion: int

    def __init__(self, body: nn.Sequential, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = body
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


class BasicBlock(_Residual):
    """Two 3×3 convolutions."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        body = nn.Sequential(
            *(_conv(inputs, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)),
            *(_conv(width, width, 3), nn.BatchNorm2d(width)),
        )
        super().__init__(body, inputs, width, stride)


class Bottleneck(_Residual):
    """1×1, 3×3 with the stride, 1×1 to four times the width."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, inner: Optional[int] = None, groups: int = 1) -> None:
        inner, outputs = inner or width, width * self.expansion
        body = nn.Sequential(
            *(_conv(inputs, inner, 1), nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
            *(_conv(inner, inner, 3, stride, groups), nn.BatchNorm2d(inner), nn.ReLU(inplace=True)),
            *(_conv(inner, outputs, 1), nn.BatchNorm2d(outputs)),
        )
        super().__init__(body, inputs, outputs, stride)


class ResNeXtBlock(Bottleneck):
    """A bottleneck with eight groups, its inner layers eight times as wide: 8 × 64d for a width of 64."""

    groups = 8

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__(inputs, width, stride, inner=self.groups * width, groups=self.groups)


class ResNet(nn.Module):
    """A stem, stages of residual blocks whose width doubles from one to the next, mean over the map, a linear layer.

    Args:
        block: kind of block.
        depths: blocks of every stage; all stages but the first begin with stride 2.
        classes: number of classes K.
        channels: of the input.
        width: of the first stage.
        large: a 7×7 stem of stride 2 with pooling, and He's initialization, for images such as ImageNet's.
    """

    def __init__(
        self,
        block: Type[_Residual],
        depths: Sequence[int],
        classes: int,
        channels: int = 3,
        width: int = 64,
        large: bool = False,
    ) -> None:
        super().__init__()
        stem: List[nn.Module] = [_conv(channels, width, 7 if large else 3, 2 if large else 1), nn.BatchNorm2d(width)]
        stem.append(nn.ReLU(inplace=True))
        if large:
            stem.append(nn.MaxPool2d(3, stride=2, padding=1))
        blocks: List[nn.Module] = []
        inputs = width
        for stage, depth in enumerate(depths):
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(block(inputs, width << stage, stride))  # type: ignore[arg-type, call-arg]
                inputs = (width << stage) * block.expansion  # type: ignore[operator]
        self.features = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(inputs, classes)
        if large:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W), floating-point, normalized."""
        return self.classifier(self.features(images))


class _InvertedResidual(nn.Module):
    """1×1 to ``expansion`` times the width, 3×3 on every channel, 1×1; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.body = nn.Sequential(
            *(_conv(inputs, inner, 1, bias=True), nn.BatchNorm2d(inner), nn.ReLU6(inplace=True)),
            *(_conv(inner, inner, 3, stride, inner, bias=True), nn.BatchNorm2d(inner), nn.ReLU6(inplace=True)),
            *(_conv(inner, outputs, 1, bias=True), nn.BatchNorm2d(outputs)),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 for small images: a 1×1 stem with padding 1, so that 32 × 32 pixels become a map of 34 × 34.

    Args:
        classes: number of classes K.
        channels: of the input.
        width: factor of all widths; the widths are rounded to multiples of 8.
    """

    #: expansion, width, blocks, stride of the first block of every stage
    stages: Tuple[Tuple[int, int, int, int], ...] = (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1)),
    )

    def __init__(self, classes: int, channels: int = 3, width: float = 1.0) -> None:
        super().__init__()

        def scaled(size: int) -> int:
            return max(8, round(size * width / 8) * 8)

        inputs, last = scaled(32), scaled(1280)
        layers: List[nn.Module] = [nn.Conv2d(channels, inputs, 1, padding=1), nn.BatchNorm2d(inputs)]
        layers.append(nn.ReLU6(inplace=True))
        for expansion, size, depth, stride in self.stages:
            for number in range(depth):
                layers.append(_InvertedResidual(inputs, scaled(size), stride if number == 0 else 1, expansion))
                inputs = scaled(size)
        layers += [nn.Conv2d(inputs, last, 1), nn.BatchNorm2d(last), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Conv2d(last, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, C, H, W), floating-point, normalized."""
        return self.classifier(self.features(images)).flatten(1)


def resnet18(classes: int, channels: int = 3, width: int = 64, large: bool = False) -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2), classes, channels, width, large)


def resnet50(classes: int, channels: int = 3, width: int = 64, large: bool = False) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3), classes, channels, width, large)


def resnet152(classes: int, channels: int = 3, width: int = 64, large: bool = False) -> ResNet:
    return ResNet(Bottleneck, (3, 8, 36, 3), classes, channels, width, large)


def resnext29(classes: int, channels: int = 3, width: int = 64, large: bool = False) -> ResNet:
    """ResNeXt-29, 8×64d where the width is 64: the teacher of the paper's distillation."""
    return ResNet(ResNeXtBlock, (3, 3, 3), classes, channels, width, large)


def mobilenetv2(classes: int, channels: int = 3, width: float = 1.0) -> MobileNetV2:
    return MobileNetV2(classes, channels, width)


NETWORKS: Dict[str, Callable[..., nn.Module]] = {
    function.__name__: function for function in (resnet18, resnet50, resnet152, resnext29, mobilenetv2)
}


def find_network(name: str) -> Callable[..., nn.Module]:
    """The function that builds the network ``name``: one of :data:`NETWORKS`, or the user's own ``MODULE:FUNCTION``.

    The module is an installed one, or a file in the current directory. The function is called with
    ``classes=K, channels=C`` and the settings ``network.KEY``.

    Raises:
        UserError: no such network, or a module that cannot be imported.
    """
    if ":" not in name:
        if name not in NETWORKS:
            raise UserError(f"unknown network {name!r}: choose from {', '.join(NETWORKS)}, or name MODULE:FUNCTION")
        return NETWORKS[name]
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # the installed command, unlike python -m, does not look there
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot import the network {name}: {error}") from None


def network_defaults(name: str) -> Dict[str, object]:
    """The settings of a network other than its classes and channels, with their defaults."""
    parameters = inspect.signature(find_network(name)).parameters.values()
    return {
        each.name: each.default for each in parameters if each.default is not each.empty and each.name != "channels"
    }


def build_network(name: str, classes: int, channels: int, settings: Dict[str, object]) -> nn.Module:
    """A network with fresh weights.

    Raises:
        UserError: no such network, or settings that it does not take.
    """
    width = settings.get("width", 1)
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width <= 4096:
        raise UserError(f"network.width must be a number above 0, got {width}")
    try:
        network = find_network(name)(classes=classes, channels=channels, **settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"the network {name} does not take these settings: {error}") from None
    if not isinstance(network, nn.Module):
        raise UserError(f"{name} must return a torch.nn.Module, got {type(network).__name__}")
    return network
