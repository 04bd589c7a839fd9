"""What holds for any module: its tokens, its type of numbers, its layout, its logits, its hash."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain

import torch
from torch import Tensor, nn

from phosphene.errors import BadRequest, UnknownName
from phosphene.tensors import device_of, first_tensor

_WRAPPERS = (
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)


def unwrapped(name: str, network: nn.Module) -> nn.Module:
    """Return the network that a wrapper holds: one for several devices, an average, a compiled one.

    `BadRequest` for a scripted one, whose layers cannot be read.
    """
    while True:
        if isinstance(network, torch.jit.ScriptModule):
            raise BadRequest(
                f"{name} is scripted, so its layers cannot be read; give the module that "
                "torch.jit.script or torch.jit.trace was given, or a program of torch.export.save"
            )
        within = getattr(network, "_orig_mod", None)
        if isinstance(network, _WRAPPERS):
            within = network.module
        if not isinstance(within, nn.Module):
            return network
        network = within


def ready(name: str, network: nn.Module) -> nn.Module:
    """Return the network that a wrapper holds, in eval mode.

    `BadRequest` for one that has no such mode, and for one whose weights are not there.
    """
    network = unwrapped(name, network)
    try:
        network.eval()
    except NotImplementedError:  # of ExportedProgram.module()
        raise BadRequest(
            f"{name} is a module of torch.export without layers to read; save the program by "
            "torch.export.save, and give the file net.pt2"
        ) from None
    for path, value in network.named_parameters():
        if value.is_meta:
            raise BadRequest(
                f"{name}: {path} has no numbers yet; return a network whose weights are there"
            )
    return network


def number_type(network: nn.Module) -> torch.dtype:
    """Return the type of numbers that a network takes: that of its first weights or buffer."""
    numbers = chain(network.parameters(), network.buffers())
    return next((each.dtype for each in numbers if each.is_floating_point()), torch.float32)


def token_names(network: nn.Module) -> tuple[str, ...] | None:
    """Return names of the tokens ahead of a transformer's patches, such as ("class", "register0").

    They come from timm's and torchvision's modules and from the configurations of 🤗 transformers,
    also where such a network is a part of another. None where no module has them.
    """
    for module in network.modules():
        for names_of in (_tokens_of_timm, _tokens_of_torchvision, _tokens_of_transformers):
            if (names := names_of(module)) is not None:
                return names
    return None


def _tokens_of_timm(module: nn.Module) -> tuple[str, ...] | None:
    count = getattr(module, "num_prefix_tokens", None)
    if not isinstance(count, int):
        return None
    named = [
        name
        for name, part in (("class", "cls_token"), ("distillation", "dist_token"))
        if getattr(module, part, None) is not None
    ][:count]
    return (*named, *(f"register{i}" for i in range(count - len(named))))


def _tokens_of_torchvision(module: nn.Module) -> tuple[str, ...] | None:
    return ("class",) if isinstance(getattr(module, "class_token", None), nn.Parameter) else None


def _tokens_of_transformers(module: nn.Module) -> tuple[str, ...] | None:
    config = getattr(module, "config", None)
    if getattr(config, "model_type", None) == "deit":
        return "class", "distillation"
    registers = getattr(config, "num_register_tokens", None)
    if isinstance(registers, int):
        return "class", *(f"register{i}" for i in range(registers))
    return None


def logits_layer(network: nn.Module, classes: int) -> str:
    """Return the last layer with one channel for each class, "" where there is none.

    Where that is a convolution, it is the block that then pools it.
    """
    for path, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear) and module.out_features == classes:
            return path
        if isinstance(module, nn.Conv2d) and module.out_channels == classes:
            return path.rpartition(".")[0] or path
    return ""


def last_layer(network: nn.Module) -> str:
    """Return the last linear layer or convolution, where a classifier's logits are."""
    found = [
        path
        for path, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    return found[-1] if found else ""


def input_channels(network: nn.Module, size: tuple[int, int]) -> int:
    """Return how many channels a network reads: 3 where it takes them.

    Else it is what its first convolution reads, or 1 without one, and 3 where it takes neither.
    """
    kinds = (nn.Conv2d, nn.Conv3d)
    first = next((each.in_channels for each in network.modules() if isinstance(each, kinds)), 1)
    if first == 3 or _takes(network, 3, size):
        return 3
    return first if _takes(network, first, size) else 3


def _takes(network: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    """Return whether a network makes one row of one image of so many channels."""
    blank = _blank(network, channels, size)
    # of every kind: other people's networks
    with suppress(Exception, SystemExit), without_gradients():
        answer = network.eval()(blank)
        with suppress(UnknownName):  # what is no tensor tells nothing
            return first_tensor(answer).shape[:1] in ((), (1,))
        return True
    return False


def _blank(network: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    shape = (1, channels, *size)
    return torch.zeros(shape, device=device_of(network), dtype=number_type(network))


def fitting_layout(
    network: nn.Module, size: tuple[int, int], channels: int = 3
) -> torch.memory_format:
    """Return channels last, the faster layout, unless the network takes the other one alone.

    Any other fault of the network shows in its first real pass.
    """
    blank = _blank(network, channels, size)
    for layout in (torch.channels_last, torch.contiguous_format):
        with suppress(Exception, SystemExit), without_gradients():
            network(blank.contiguous(memory_format=layout))
            return layout
    return torch.channels_last


@contextmanager
def without_gradients() -> Iterator[None]:
    """Lend a pass without gradients, and without the warning of checkpoints that there are none."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad", UserWarning)
        yield


def largest_batch(answers: Callable[[int], int]) -> int:
    """Return how many images a network takes: 1, or 0 for any number.

    `answers` runs it on so many images and returns for how many it answered.
    """
    with suppress(Exception):  # of every kind: the same of one image tells what is wrong
        if answers(2) == 2:
            return 0
    return 1 if answers(1) == 1 else 0


def sha256_of_weights(network: nn.Module) -> str:
    """Return a hash of a network's state: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(
            f"{name} {getattr(value, 'dtype', '')} {tuple(getattr(value, 'shape', ()))}\n".encode()
        )
        if not isinstance(value, Tensor):
            digest.update(repr(value).encode())
        elif not value.is_meta:
            dense = value.dequantize() if value.is_quantized else value.to_dense()
            digest.update(
                dense.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
    return digest.hexdigest()
