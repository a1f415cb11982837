"""Models with the names of torchvision's, so that its weights load."""

from __future__ import annotations

import os

from dualrev.eager import nn
from dualrev.eager.graph.tensor import Tensor
from dualrev.eager.serialization import load


class BasicBlock(nn.Module):
    """Two convolutions of 3 by 3 with a residual connection."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class ResNet(nn.Module):
    """A residual network: a stem, four layers of blocks, and a linear classifier.

    Source: [HeEtAl2016, table 1].
    """

    def __init__(self, blocks: tuple[int, ...], num_classes: int = 1000):
        super().__init__()
        self.inplanes = 64
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        for i, n in enumerate(blocks):
            setattr(self, f"layer{i + 1}", self._layer(64 << i, n, 1 if i == 0 else 2))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64 << (len(blocks) - 1), num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _layer(self, planes: int, n: int, stride: int) -> nn.Module:
        downsample = None
        if stride != 1 or self.inplanes != planes:
            downsample = nn.Sequential(nn.Conv2d(self.inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
        first = BasicBlock(self.inplanes, planes, stride, downsample)
        self.inplanes = planes
        return nn.Sequential(first, *[BasicBlock(planes, planes) for _ in range(n - 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(weights: None = None, num_classes: int = 1000) -> ResNet:
    """ResNet-18.

    Args:
      weights: None for random ones, a state_dict, or the path of a safetensors file with the names of torchvision's.
      num_classes: the outputs.

    Raises:
      RuntimeError: names or shapes differ.
      ValueError: the file is not a safetensors file.
    """
    model = ResNet((2, 2, 2, 2), num_classes)
    if isinstance(weights, (str, os.PathLike)):
        weights = load(weights)
    if weights is not None:
        model.load_state_dict(weights)
    return model
