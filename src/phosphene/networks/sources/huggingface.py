"""Networks of 🤗 transformers, from the hub or a folder: classifiers, backbones, towers with text.

Weights are read from safetensors only, and no code from either is run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from phosphene.errors import BadFile, BadRequest, UnknownName, one_line
from phosphene.files import FIRST, pointer_of, really_is
from phosphene.networks.inspection import logits_layer
from phosphene.networks.sources.loading import (
    MAX_CHANNELS,
    LoadedNetwork,
    ask,
    checked_network,
    extra_module,
    fetching,
    seeded_by_zero,
    sha256_of,
    triple,
)
from phosphene.tensors import first_tensor

_SETTINGS = ("config.json", "preprocessor_config.json")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
_TOKENIZER = (*_VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
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
        size, mean, std, swapped = _preprocessing(library, folder, _channels(config))
        shown = size or _stated(config) or (224, 224)
        classifies = _is_classifier(config)
        auto = library.AutoModelForImageClassification if classifies else library.AutoModel
        made = _random(auto, config) if random else _trained(auto, folder, name)
    network = Tower(made) if hasattr(config, "vision_config") and not classifies else made
    if swapped:
        mean, std = mean[::-1], std[::-1]
        _swap_red_and_blue(network, name)
    classes = _classes(config) if classifies else ()
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
    output = logits_layer(network, config.num_labels) if classifies else ""
    embed_text = None
    if isinstance(network, Tower):
        output = "embedding"
        embed_text = _reader_of_text(library, name, folder, made)
    loaded = LoadedNetwork(network, shown, mean, std, classes, output, card, embed_text=embed_text)
    return checked_network(name, loaded, lambda images: _vector(network(images)))


class Tower(nn.Module):
    """Embed images by the vision tower of a model of images and texts; `embedding` has unit length.

    So the product with a text's embedding of unit length is their cosine similarity.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.vision_model = model.vision_model
        self.visual_projection = getattr(model, "visual_projection", nn.Identity())
        self.embedding = UnitLength()

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.vision_model(images).pooler_output
        return self.embedding(self.visual_projection(pooled))  # type: ignore[no-any-return]


class UnitLength(nn.Module):
    """Scale each vector (batch, channels) to length one."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors / vectors.norm(dim=-1, keepdim=True)


def _vector(output: Any) -> Tensor:
    """Return one vector for each image, (batch, channels), of what a network makes of images."""
    if isinstance(output, Tensor):
        return output
    for name in ("logits", "pooler_output"):
        if isinstance(found := output.get(name), Tensor):
            return found.flatten(1)
    return first_tensor(output).flatten(1)


def _reader_of_text(
    library: ModuleType, name: str, folder: Path, model: Any
) -> Callable[[str], Tensor] | None:
    """Return what gives a text's embedding, (channels,); None where the model reads no texts."""
    if not hasattr(model, "get_text_features"):
        return None

    def embed(text: str) -> Tensor:
        tokens = _tokenizer(library, name, folder)(
            [text],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
            max_length=model.config.text_config.max_position_embeddings,
        )
        with torch.no_grad():
            given = {key: value.to(model.device) for key, value in tokens.items()}
            found = model.get_text_features(**given)
        return (found if isinstance(found, Tensor) else found.pooler_output)[0].float().cpu()

    return embed


def _tokenizer(library: ModuleType, name: str, folder: Path) -> Any:
    """Return the tokenizer of a folder; without its files the library would make an empty one."""
    try:
        if not any((folder / file).is_file() for file in _VOCABULARIES):
            raise FileNotFoundError(f"there is none of {', '.join(_VOCABULARIES)}")
        with _quiet(library):
            return library.AutoTokenizer.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # of every kind: each tokenizer reads its files itself
        raise BadFile(
            f"{name} has no tokenizer that can be read, so no text: {one_line(error)[:200]}; "
            f"its tokenizer.json belongs into {folder}"
        ) from None


def _is_classifier(config: Any) -> bool:
    """Return whether the weights are a classifier's, by the classes that they were saved from.

    Where none is told, they are taken for a classifier's.
    """
    saved = getattr(config, "architectures", None) or []
    return not saved or any(each.endswith("ForImageClassification") for each in saved)


def _classes(config: Any) -> tuple[str, ...]:
    """Return the names of a classifier's classes, () where they are only numbers."""
    labels = [str(config.id2label.get(i, "")) for i in range(config.num_labels)]
    unnamed = all(re.fullmatch(r"LABEL_\d+|", label) for label in labels)
    return () if unnamed else tuple(labels)


def _stated(config: Any) -> tuple[int, int] | None:
    """Return the (height, width) that a configuration states, if it does."""
    size = getattr(getattr(config, "vision_config", config), "image_size", None)
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

    wanted = [*_SETTINGS, *_TOKENIZER, *([] if random else _WEIGHTS)]
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
            "so it is no network of images that can be read safely"
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


def _channels(config: Any) -> int:
    """Return how many channels a configuration states, 3 where it states none."""
    channels = getattr(getattr(config, "vision_config", config), "num_channels", None)
    return channels if isinstance(channels, int) and 1 <= channels <= MAX_CHANNELS else 3


_Scaling = tuple[float, ...]


def _preprocessing(
    library: ModuleType, folder: Path, channels: int
) -> tuple[tuple[int, int] | None, _Scaling, _Scaling, bool]:
    """Return size, mean, standard deviation, and whether blue comes first, of an image processor.

    They are measured by what it makes of plain pictures. Black and white give the
    two ends of the straight line that each channel is, and red tells the order. The size is None
    where pictures of another size come out in another size. No picture has other channels than RGB
    for certain, so there the settings say the mean and the standard deviation.
    """
    processor = library.AutoImageProcessor.from_pretrained(
        folder, backend="pil", trust_remote_code=False
    )
    if channels != 3:
        mean, std = _stated_scaling(processor, channels)
        processor.do_normalize = False
        height, width = _processed(processor, "black").shape[1:]
        resizes = _processed(processor, "black", 320).shape[1:] == (height, width)
        return (height, width) if resizes else None, mean, std, False
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


def _stated_scaling(processor: Any, channels: int) -> tuple[_Scaling, _Scaling]:
    """Return mean and standard deviation, on values in 0 … 1, of as many channels.

    Values are told in those of the processor, which may have rescaled them before.
    """
    factor = 255 * float(processor.rescale_factor) if processor.do_rescale else 255.0
    means, stds = [0.0], [1.0]
    if processor.do_normalize:
        means = np.atleast_1d(processor.image_mean).tolist()
        stds = np.atleast_1d(processor.image_std).tolist()
    several = {len(means), len(stds)} - {channels}
    if several and (len({*means}) > 1 or len({*stds}) > 1):
        raise ValueError(
            f"its image processor has means {means} and deviations {stds}, and the network "
            f"{channels} channel{'s' if channels > 1 else ''}"
        )
    means, stds = (each if len(each) == channels else each[:1] * channels for each in (means, stds))
    return tuple(each / factor for each in means), tuple(each / factor for each in stds)


def _processed(processor: Any, colour: str, side: int = 256) -> Any:
    """Return what a processor makes of a plain picture, (3, height, width) in double precision."""
    picture = Image.new("RGB", (side, side), colour)
    pixels = processor(picture, return_tensors="np")["pixel_values"]
    if np.ndim(pixels) != 4 or len(pixels[0]) != 3:
        raise ValueError(
            f"its image processor makes arrays of {np.shape(pixels)}, not (1, 3, height, width)"
        )
    return np.asarray(pixels[0], np.float64)


def _trained(auto: Any, folder: Path, name: str) -> nn.Module:
    network, report = auto.from_pretrained(
        folder,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        attn_implementation="eager",
        dtype=torch.float32,
        output_loading_info=True,
    )
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent and all(key.startswith("pooler.") for key in absent):
        network.pooler = None  # a backbone that was trained without one
        absent = []
    if absent:
        raise BadFile(f"{name} is no trained network: its weights lack {', '.join(absent[:3])}")
    return network  # type: ignore[no-any-return]


def _random(auto: Any, config: Any) -> nn.Module:
    with seeded_by_zero():
        return auto.from_config(  # type: ignore[no-any-return]
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
