"""Networks as people have them, for the commands of networks.md; each function is a factory."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, prune

SIZE = 16
SMALL = {"size": SIZE}
Made = tuple[nn.Module, dict[str, Any]]


def layers(channels: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    parts = {
        "conv": nn.Conv2d(channels, 8, 3),
        "norm": nn.BatchNorm2d(8),
        "relu": nn.ReLU(),
        "drop": nn.Dropout(0.5),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "fc": nn.Linear(8, 4),
    }
    return nn.Sequential(OrderedDict(parts))


class Around(nn.Module):
    """Hold a network in `body`, and make something of its answer."""

    def __init__(self, made: Callable[[Tensor], Any] = lambda logits: logits):
        super().__init__()
        self.body = layers()
        self.made = made

    def forward(self, images: Tensor) -> Any:
        return self.made(self.body(images))


# The same network in other forms


def plain() -> Made:
    return layers(), SMALL


def in_train_mode() -> Made:
    return layers().train(), SMALL


def half() -> Made:
    return layers().half(), SMALL


def bfloat16() -> Made:
    return layers().bfloat16(), SMALL


def double() -> Made:
    return layers().double(), SMALL


class InAutocast(Around):
    def forward(self, images: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.body(images)


def autocast() -> Made:
    return InAutocast(), SMALL


def compiled() -> Made:
    return torch.compile(layers(), backend="eager"), SMALL


def compiled_in_place() -> Made:
    network = layers()
    network.compile(backend="eager")
    return network, SMALL


def parallel() -> Made:
    return nn.DataParallel(layers()), SMALL


def parallel_of_compiled() -> Made:
    return nn.DataParallel(torch.compile(layers(), backend="eager")), SMALL


def averaged() -> Made:
    return torch.optim.swa_utils.AveragedModel(layers()), SMALL


def graph() -> Made:
    return torch.fx.symbolic_trace(layers().eval()), SMALL


class HalfScripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        network = layers().eval()
        self.first = torch.jit.script(network[:5])
        self.fc = network.fc

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.first(images).flatten(1))


def scripted_in_part() -> Made:
    return HalfScripted(), SMALL


def weight_norm() -> Made:
    network = layers()
    parametrizations.weight_norm(network.conv)
    return network, SMALL


def hooked() -> Made:
    network = layers()
    kept: dict[str, Tensor] = {}
    network.register_forward_pre_hook(lambda module, read: (read[0] * 1,))
    network.conv.register_forward_hook(lambda module, read, made: kept.update(conv=made))
    network.relu.register_full_backward_hook(lambda module, read, made: kept.update(back=made[0]))
    return network, SMALL


def learned_mean() -> Made:
    """Return a network whose batch norm has a mean that needs a gradient."""
    network = layers()
    mean = network.norm.running_mean
    del network.norm.running_mean
    network.norm.running_mean = nn.Parameter(mean)
    return network, SMALL


def computed_mean() -> Made:
    """Return a network with a buffer that is computed of a weight."""
    network = layers()
    network.norm.running_mean = network.conv.bias * 0
    return network, SMALL


def made_in_inference() -> Made:
    with torch.inference_mode():
        return layers(), SMALL


@dataclass
class Answer:
    loss: Any
    logits: Tensor


Named = namedtuple("Named", "logits other")


def as_tuple() -> Made:
    return Around(lambda logits: (logits, None)), SMALL


def as_list() -> Made:
    return Around(lambda logits: [logits]), SMALL


def as_dict() -> Made:
    return Around(lambda logits: {"logits": logits}), SMALL


def as_dict_of_tuples() -> Made:
    return Around(lambda logits: {"heads": (logits, None)}), SMALL


def as_dataclass() -> Made:
    return Around(lambda logits: Answer(None, logits)), SMALL


def as_named_tuple() -> Made:
    return Around(lambda logits: Named(logits, logits)), SMALL


def as_object() -> Made:
    return Around(lambda logits: SimpleNamespace(logits=logits)), SMALL


def as_nothing() -> Made:
    return Around(lambda logits: None), SMALL


# Other networks


def pruned() -> Made:
    network = layers()
    prune.l1_unstructured(network.conv, "weight", 0.5)
    return network, SMALL


def spectral_norm() -> Made:
    network = layers()
    nn.utils.spectral_norm(network.conv)
    parametrizations.spectral_norm(network.fc)
    return network, SMALL


def lazy() -> Made:
    network = layers()
    network.conv = nn.LazyConv2d(8, 3)
    network.fc = nn.LazyLinear(4)
    return network, SMALL


def batch_statistics() -> Made:
    """Return a network whose batch norm takes the statistics of the images that it is shown."""
    network = layers()
    network.norm = nn.BatchNorm2d(8, track_running_stats=False)
    return network, SMALL


def grey() -> Made:
    return layers(1), {"size": (12, 28)}


def wide() -> Made:
    return layers(), {"size": (12, 28)}


def two_channels() -> Made:
    return layers(2), {"size": SIZE, "from_rgb": [[0, 1, 0], [0, 0, 1]]}


def satellite() -> Made:
    return layers(6), SMALL


def spectra() -> Made:
    """Return a network of single pixels of five bands."""
    body = nn.Sequential(nn.Conv2d(5, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))
    return body, {"size": 1}


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(28 * 28, 20)
        self.fc = nn.Linear(20, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.hidden(images.view(-1, 28 * 28)).relu())


def digits() -> Made:
    torch.manual_seed(0)
    return Digits(), {"size": 28}


class Scaled(nn.Module):
    """Read numbers in 0 … 255, and scale them itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = layers()

    def forward(self, images: Tensor) -> Tensor:
        return self.body((images - 115) / 60)


def own_scaling() -> Made:
    return Scaled(), {"size": SIZE, "range": (0, 255)}


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = layers()
        self.out = nn.Linear(8, 2)

    def forward(self, images: Tensor, other: Tensor) -> Tensor:
        return self.out(torch.cat([self.body(images), self.body(other)], 1))


def siamese() -> Made:
    other = np.linspace(-1, 1, 3 * SIZE * SIZE, dtype=np.float32).reshape(3, SIZE, SIZE)
    return Pair(), {"size": SIZE, "inputs": {"other": other}}


def film() -> Made:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU())
    return body, {"size": (12, 28), "frames": 8}


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 8, 3, 2, 1)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.masks = nn.Conv2d(11, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        small = self.down(images).relu()
        return {"masks": self.masks(torch.cat([self.up(small), images], 1)), "small": small}


def unet() -> Made:
    return UNet(), SMALL


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stages = nn.ModuleList([nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)])

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.stages[0](images).relu()
        return [first, self.stages[1](first).relu()]


def stages() -> Made:
    return Stages(), SMALL


class Detector(nn.Module):
    """Look at one image after the other, and make a list of dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.body = layers()

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        return [{"scores": self.body(image[None])[0]} for image in images]


def detector() -> Made:
    return Detector(), SMALL


class OneNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = layers()
        self.rate = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.rate(self.body(images).sum(1))


def one_number() -> Made:
    """Return a network with one number for each image, (batch,)."""
    return OneNumber(), SMALL


class Contiguous(Around):
    def forward(self, images: Tensor) -> Any:
        if not images.is_contiguous():
            raise ValueError("images lie in another order")
        return self.body(images)


def contiguous() -> Made:
    """Return a network that takes images in one order of memory alone."""
    return Contiguous(), SMALL


def sparse() -> Made:
    return Around(lambda logits: logits.to_sparse()), SMALL


class Bank(nn.Module):
    """Filter with a bank of double precision that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("filters", torch.randn(4, 3, SIZE, SIZE, dtype=torch.float64))
        self.out = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.out(torch.einsum("bchw,kchw->bk", images, self.filters))


def bank() -> Made:
    return Bank(), SMALL


class Rows(nn.Module):
    """Read an image row by row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3 * SIZE, 8, batch_first=True)
        self.steps = nn.Linear(8, 6)
        self.fc = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden, _ = self.lstm(images.transpose(1, 2).flatten(2))
        return self.fc(self.steps(hidden)[:, -1])


def rows() -> Made:
    return Rows(), SMALL


class Mapped(nn.Module):
    """Run its parts on each image by `torch.func.vmap`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3)
        self.out = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.out(torch.func.vmap(lambda image: self.conv(image).mean((1, 2)))(images))


def mapped() -> Made:
    return Mapped(), SMALL


# Networks that judge and are not climbed


def quantized() -> Made:
    body = layers().eval()
    parts = [body.conv, body.relu, body.pool, body.flat, body.fc]
    network = nn.Sequential(quantization.QuantStub(), *parts, quantization.DeQuantStub()).eval()
    network.qconfig = quantization.get_default_qconfig("fbgemm")
    prepared = quantization.prepare(network)
    prepared(torch.rand(4, 3, SIZE, SIZE))
    return quantization.convert(prepared), SMALL


def quantized_when_it_runs() -> Made:
    return quantization.quantize_dynamic(layers().eval(), {nn.Linear}), SMALL


class WithoutGradient(Around):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        return self.body(images)


def without_gradient() -> Made:
    return WithoutGradient(), SMALL


class InInference(Around):
    @torch.inference_mode()
    def forward(self, images: Tensor) -> Any:
        return self.body(images)


def in_inference() -> Made:
    return InInference(), SMALL


class Bytes(Around):
    def forward(self, images: Tensor) -> Any:
        return self.body(images.to(torch.uint8).float())


def rounded() -> Made:
    return Bytes(), {"size": SIZE, "range": (0, 255)}


class Numpy(Around):
    def forward(self, images: Tensor) -> Any:
        return self.body(torch.from_numpy(np.tanh(images.numpy())))


def in_numpy() -> Made:
    return Numpy(), SMALL


def backward_hooks() -> Made:
    """Return a network whose hooks do not allow the ReLU that works in place."""
    network = layers()
    network.relu = nn.ReLU(inplace=True)
    network.relu.register_full_backward_hook(lambda module, read, made: None)
    return network, SMALL


# Networks that are refused


def scripted() -> Any:
    return torch.jit.script(layers().eval()), SMALL


def traced() -> Any:
    return torch.jit.trace(layers().eval(), torch.rand(2, 3, SIZE, SIZE)), SMALL


def exported_module() -> Any:
    images = (torch.rand(2, 3, SIZE, SIZE),)
    return torch.export.export(layers().eval(), images).module(), SMALL


def on_meta() -> Any:
    return layers().to("meta"), SMALL


def of_two_types() -> Any:
    network = layers()
    network.fc.half()
    return network, SMALL


def weights_alone() -> Any:
    return layers().state_dict(), SMALL


def function() -> Any:
    return (lambda images: images.mean((2, 3))), SMALL


def several() -> Any:
    return [layers(), layers()], SMALL


class Strict(Around):
    def forward(self, images: Tensor) -> Any:
        if images.dtype != torch.uint8:
            raise TypeError(f"images are uint8, not {images.dtype}")
        return self.body(images / 255)


def whole_numbers() -> Any:
    return Strict(), {"size": SIZE, "range": (0, 255)}


def film_without_frames() -> Any:
    return nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU()), SMALL


def siamese_alone() -> Any:
    return Pair(), SMALL


class Counting(Around):
    """Make more of each image than of the one before."""

    count = 0

    def forward(self, images: Tensor) -> Any:
        self.count += 1
        return self.body(images) * self.count


def with_a_state() -> Any:
    return Counting(), SMALL


class Spectrum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spectrum = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.spectrum(torch.fft.rfft2(images))


def spectrum() -> Any:
    return Spectrum(), SMALL
