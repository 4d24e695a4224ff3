"""The networks of the literature, each a function from input shape and classes to a module.

Sums and activations are out of place: Opacus' hooks need that.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]
Norm = Literal["batch", "group"]


def lenet_zhu(input_shape: Shape, classes: int) -> nn.Module:
    """Three 5x5 convolutions of 12 channels with sigmoids, one linear layer (Zhu et al., NeurIPS 2019).

    All weights and biases are uniform in (-.5, .5); 15,826 parameters for ten classes of 3x32x32.
    """
    channels, height, width = input_shape
    # Padding 2 and strides 2, 2, 1: each side is halved twice, rounding up.
    features = 12 * math.ceil(height / 4) * math.ceil(width / 4)
    network = nn.Sequential(
        nn.Conv2d(channels, 12, 5, padding=2, stride=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, padding=2, stride=2),
        nn.Sigmoid(),
        nn.Conv2d(12, 12, 5, padding=2, stride=1),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(features, classes),
    )
    for parameter in network.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return network


def convnet(input_shape: Shape, classes: int, width: int = 64, norm: Norm = "batch") -> nn.Module:
    """Eight 3x3 convolutions with norm and ReLU, max-pool 3 after the sixth and eighth (Geiping et al., 2020).

    A map smaller than 3 is pooled over its whole side.
    """
    channels, *sides = input_shape
    layers: list[nn.Module] = []
    for position, factor in enumerate((1, 2, 2, 4, 4, 4, 4, 4), start=1):
        layers += [nn.Conv2d(channels, factor * width, 3, padding=1), _norm(norm, factor * width), nn.ReLU()]
        channels = factor * width
        if position in (6, 8):
            layers.append(nn.MaxPool2d((min(3, sides[0]), min(3, sides[1]))))
            sides = [max(1, side // 3) for side in sides]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * sides[0] * sides[1], classes))


def mlp(input_shape: Shape, classes: int, hidden: tuple[int, ...] | None = None) -> nn.Module:
    """Flatten, then linear layers with ReLU of the widths `hidden`: by default 1024, 1024, or 64, 64 at 224x224."""
    _, height, width = input_shape
    if hidden is None:
        hidden = (64, 64) if height * width >= 224 * 224 else (1024, 1024)
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = math.prod(input_shape)
    for outputs in hidden:
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def resnet(input_shape: Shape, classes: int, blocks: int, width: int, norm: Norm = "batch") -> nn.Module:
    """CIFAR ResNet (He et al., 2016): 3x3 stem, three stages of `blocks` basic blocks, `width` doubling.

    Shortcuts that change shape are 1x1 convolutions with norm; average pooling takes any input size.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False),
        _norm(norm, width),
        nn.ReLU(),
    ]
    inputs = width
    for stage in range(3):
        outputs = width * 2**stage
        for block in range(blocks):
            layers.append(_BasicBlock(inputs, outputs, 2 if stage and not block else 1, norm))
            inputs = outputs
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            _norm(norm, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            _norm(norm, outputs),
        )
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), _norm(norm, outputs))
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(torch.add(self.residual(x), self.shortcut(x)))


def _norm(norm: Norm, channels: int) -> nn.Module:
    # The groups that Opacus' own replacement of batch norm would take.
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(32, channels), channels)
