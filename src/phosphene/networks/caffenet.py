"""CaffeNet's shape for small photographs: five convolutions, three fully connected layers."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class CaffeNet(nn.Module):
    """Classify photographs of 84 pixels by Krizhevsky et al.'s network, in Caffe's layout.

    Its layers carry Caffe's names: `conv1` … `conv5`, `pool5`, `fc6`, `fc7` are values *after* the
    ReLU (the paper's codes), `fc8` holds the logits. The pre-activation of any of them is the
    `.norm` inside it (`fc6.norm`), which is where a climb starts whose unit is silent after the
    ReLU.

    `pool5` is adaptive, so that training may begin on smaller crops. Input (batch, 3, height,
    width), normalised; output (batch, classes).
    """

    def __init__(self, classes: int = 100, width: int = 1024, dropout: float = 0.5):
        super().__init__()
        self.conv1 = _block(nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False))
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = _block(nn.Conv2d(64, 192, 5, padding=2, bias=False))
        self.pool2 = nn.MaxPool2d(3, stride=2)
        self.conv3 = _block(nn.Conv2d(192, 384, 3, padding=1, bias=False))
        self.conv4 = _block(nn.Conv2d(384, 384, 3, padding=1, bias=False))
        self.conv5 = _block(nn.Conv2d(384, 256, 3, padding=1, bias=False))
        self.pool5 = nn.AdaptiveMaxPool2d(4)
        self.flatten = nn.Flatten()
        self.fc6 = _block(nn.Linear(256 * 4 * 4, width, bias=False))
        self.drop6 = nn.Dropout(dropout)
        self.fc7 = _block(nn.Linear(width, width, bias=False))
        self.drop7 = nn.Dropout(dropout)
        self.fc8 = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        for layer in self.children():
            images = layer(images)
        return images


def _block(linear: nn.Conv2d | nn.Linear) -> nn.Sequential:
    """Return a linear map, batch norm and a ReLU."""
    if isinstance(linear, nn.Conv2d):
        norm: nn.Module = nn.BatchNorm2d(linear.out_channels)
    else:
        norm = nn.BatchNorm1d(linear.out_features)
    return nn.Sequential(OrderedDict(linear=linear, norm=norm, relu=nn.ReLU()))
