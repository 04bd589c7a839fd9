"""Image classifiers of 🤗 transformers, from the hub or a folder.

Weights are read from safetensors only, and no code from either is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from phosphene.errors import BadFile, BadRequest, UnknownName, one_line
from phosphene.files import FIRST, pointer_of, really_is
from phosphene.networks.inspection import logits_layer
from phosphene.networks.sources.loading import (
    LoadedNetwork,
    ask,
    checked_network,
    extra_module,
    fetching,
    seeded_by_zero,
    sha256_of,
    triple,
)

_SETTINGS = ("config.json", "preprocessor_config.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")


def load(text: str) -> LoadedNetwork:
    """Return `OWNER/NAME` of the hub, a folder of `save_pretrained`, or either with `@random`."""
    library = extra_module("transformers")
    # here a torchvision that does not fit torch is noticed
    extra_module("transformers.modeling_utils", "transformers")
    source, random = text.removesuffix("@random"), text.endswith("@random")
    name = f"hf:{source}"
    folder = _folder(name, source, random)
    with _quiet(library), _reading(name, folder):
        config = library.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        size, mean, std, swapped = _preprocessing(library, folder)
        shown = size or _stated(config) or (224, 224)
        network = _random(library, config) if random else _trained(library, folder, name)
    if swapped:
        mean, std = mean[::-1], std[::-1]
        _swap_red_and_blue(network, name)
    labels = [str(config.id2label.get(i, "")) for i in range(config.num_labels)]
    classes = () if all(re.fullmatch(r"LABEL_\d+|", label) for label in labels) else tuple(labels)
    sha256 = sha256_of(_files(folder, random))
    card = {
        "source": "transformers",
        "weights": "random" if random else source,
        "licence": "its model card's",
        "version": library.__version__,
        "sha256": f"{sha256}@random" if random else sha256,
    }
    if size is None:  # its processor leaves images as they are
        card["size_0_1_0"] = [256, 256]
        if _stated(config) is None:
            card["assumed"] = f"{shown[0]} × {shown[1]} pixels; its image processor does not resize"
    output = logits_layer(network, config.num_labels)
    loaded = LoadedNetwork(network, shown, mean, std, classes, output, card)
    return checked_network(name, loaded, lambda images: network(images).logits)


def _stated(config: Any) -> tuple[int, int] | None:
    """Return the (height, width) that a configuration states, if it does."""
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return None


def _folder(name: str, source: str, random: bool) -> Path:
    """Return where the files lie: the user's folder, or the hub's cache after a download."""
    folder = Path(os.path.expanduser(source))  # which raises nothing where there is no home
    if folder.is_dir():
        if lacking := _lacking(folder, random):
            raise BadFile(
                f"{name} has no {lacking}; model.save_pretrained({source!r}) and its image "
                "processor's write what is needed "
                "(weights in another form than safetensors are not read)"
            )
        for file in _files(folder, random):
            with file.open("rb") as start:
                if kind := pointer_of(start.read(FIRST)):
                    raise BadFile(f"{file} is {kind}")
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise UnknownName(f"{name} is neither a folder nor of the form hf:OWNER/NAME")
    return _from_hub(name, source, random)


def _from_hub(name: str, repository: str, random: bool) -> Path:
    """Return the folder in the cache, after a download where some of it is missing.

    The hub is asked first, since its client tries for long.
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = [*_SETTINGS, *([] if random else _WEIGHTS)]
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                repository, allow_patterns=wanted, local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        folder = Path()
    if not _lacking(folder, random):
        return folder
    hub = huggingface_hub.constants.ENDPOINT
    with fetching(name, hub, "download its files elsewhere and give their folder, hf:FOLDER"):
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            ask(hub)
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=wanted))
    if lacking := _lacking(folder, random):
        raise BadFile(
            f"{name} has no {lacking} on the hub, "
            "so it is no image classifier that can be read safely"
        )
    return folder


def _lacking(folder: Path, random: bool) -> str:
    """Return the first file that a folder should have and has not."""
    wanted = _SETTINGS if random or any(_weights(folder)) else (*_SETTINGS, "model.safetensors")
    return next((file for file in wanted if not (folder / file).is_file()), "")


def _weights(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.glob("*.*") if any(fnmatch(file.name, form) for form in _WEIGHTS)
    )


def _files(folder: Path, random: bool) -> list[Path]:
    """Return all files that the network depends on, in an order that is always the same."""
    return [*(folder / file for file in _SETTINGS), *([] if random else _weights(folder))]


def _preprocessing(
    library: ModuleType, folder: Path
) -> tuple[tuple[int, int] | None, tuple[float, float, float], tuple[float, float, float], bool]:
    """Return size, mean, standard deviation, and whether blue comes first, of an image processor.

    They are measured by what it makes of plain pictures. Black and white give the
    two ends of the straight line that each channel is, and red tells the order. The size is None
    where pictures of another size come out in another size.
    """
    processor = library.AutoImageProcessor.from_pretrained(
        folder, backend="pil", trust_remote_code=False
    )
    black, white, red = (_processed(processor, colour) for colour in ("black", "white", "red"))
    height, width = black.shape[1:]
    resizes = _processed(processor, "black", 320).shape[1:] == (height, width)
    low, high = black.mean((1, 2)), white.mean((1, 2))
    if not (np.isfinite(high - low).all() and (high - low > 0).all()):
        raise ValueError(
            f"its image processor makes {low.tolist()} of black and {high.tolist()} of white"
        )
    swapped = bool((red - black)[0].mean() < (red - black)[2].mean())
    mean, std = (
        triple(round(float(value), 6) for value in values)
        for values in (-low / (high - low), 1 / (high - low))
    )
    return (height, width) if resizes else None, mean, std, swapped


def _processed(processor: Any, colour: str, side: int = 256) -> Any:
    """Return what a processor makes of a plain picture, (3, height, width) in double precision."""
    picture = Image.new("RGB", (side, side), colour)
    pixels = processor(picture, return_tensors="np")["pixel_values"]
    if np.ndim(pixels) != 4 or len(pixels[0]) != 3:
        raise ValueError(
            f"its image processor makes arrays of {np.shape(pixels)}, not (1, 3, height, width)"
        )
    return np.asarray(pixels[0], np.float64)


def _trained(library: ModuleType, folder: Path, name: str) -> nn.Module:
    network, report = library.AutoModelForImageClassification.from_pretrained(
        folder,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        attn_implementation="eager",
        dtype=torch.float32,
        output_loading_info=True,
    )
    if absent := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise BadFile(
            f"{name} is no trained image classifier: its weights lack {', '.join(absent[:3])}"
        )
    return network  # type: ignore[no-any-return]


def _random(library: ModuleType, config: Any) -> nn.Module:
    with seeded_by_zero():
        return library.AutoModelForImageClassification.from_config(  # type: ignore[no-any-return]
            config, trust_remote_code=False, attn_implementation="eager", dtype=torch.float32
        )


def _swap_red_and_blue(network: nn.Module, name: str) -> None:
    """Make a network that reads blue first read red first.

    The input channels of its first convolution change places.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            module.weight = nn.Parameter(module.weight.detach().flip(1))
            return
    raise BadRequest(
        f"{name} reads blue first, and has no convolution in which that could be undone"
    )


@contextmanager
def _quiet(library: ModuleType) -> Iterator[None]:
    """Silence the library's messages and progress bars for a while; errors still come through."""
    logging = library.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _reading(name: str, folder: Path) -> Iterator[None]:
    """Turn whatever the library raises over a folder into one line that names a damaged file."""
    try:
        yield
    except BadFile:
        raise
    except Exception as error:  # of every kind: each architecture reads its configuration itself
        if (file := _damaged(folder)) is not None:
            reason = really_is(file) or one_line(error)[:300]
            raise BadFile(
                f"{name} cannot be read: {file.name} is damaged ({reason}); "
                f"delete {file.resolve()} and fetch it again"
            ) from None
        raise BadFile(
            f"{name} cannot be read ({type(error).__name__}: {one_line(error)[:300]})"
        ) from None


def _damaged(folder: Path) -> Path | None:
    """Return the first file of weights that is none, if any."""
    from safetensors import SafetensorError, safe_open

    for file in _weights(folder):
        if file.suffix == ".safetensors":
            try:
                safe_open(file, "pt")
            except (SafetensorError, OSError):
                return file
    return None
