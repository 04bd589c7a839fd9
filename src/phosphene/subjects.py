"""The network under study, with its preprocessing and the names of its classes."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from phosphene import weights
from phosphene.axes import Tokens, tokens_of
from phosphene.dictionaries import read_dictionary
from phosphene.errors import (
    BadFile,
    BadRequest,
    PhospheneError,
    UnknownName,
    one_line,
    type_name,
)
from phosphene.factories import ALIASES, is_factory
from phosphene.networks import build
from phosphene.networks.components import NAME as COMPONENTS
from phosphene.networks.components import Components
from phosphene.networks.empty import without_weights
from phosphene.networks.inputs import WithInputs, with_inputs
from phosphene.networks.inspection import (
    fitting_layout,
    largest_batch,
    last_layer,
    number_type,
    ready,
    sha256_of_weights,
    token_names,
    without_gradients,
)
from phosphene.networks.sources import SOURCES, is_source, load_network
from phosphene.networks.sources.loading import (
    MAX_CHANNELS,
    check_names,
    check_repeats,
    checked_fit,
    checked_options,
    first_pass,
    seeded_by_zero,
    wrong_scale,
)
from phosphene.probe import (
    Read,
    layer_path,
    layer_shapes,
    layer_sizes,
    lost_gradient,
    probe,
    run,
    view_shapes,
)
from phosphene.targets import resolve
from phosphene.tensors import FITS, LUMINANCE, device_of, first_tensor, fitted, recoloured
from phosphene.units import Target
from phosphene.views import Extended, extended, plain, views_of

READINGS = (1, 2, 3)
"""Versions of what a layer's values mean. 1, by version 0.1.0: three axes are (batch, tokens,
channels), the tokens in one line; networks of timm read the size of their training, images of an
`hf:` processor that does not resize have 256 pixels. 2: patches are a map and the tokens ahead
of them apart, values of nn.Conv1d and its kind are (batch, channels, length); the size is that of
the test, or of the configuration. 3: images are cut to the subject's proportions, and before they
were stretched; the priors pixels and fourier have its proportions, and before they were square."""

MAX_TARGETS = 100_000
"""A longer list of targets in one call is taken for a slip."""

COUPLED = 1e-2
"""How far an answer may move with the images beside, in shares of the largest; more than rounding
in any precision."""

MAX_SIDE = 4096
"""Pixels; a weights file that asks for larger images is refused."""

MAX_NAME = 500
"""Letters of a class's name, with its synonyms."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A frozen network and its preprocessing.

    It reads `size` (height, width) pixels of as many channels as `mean` and `std` have numbers.
    These normalise values in [0, 1]. `output` is the layer whose channels are the classes ("" when
    unknown). `card` holds what its weights file says of it. `batch` is the most images that it
    takes at once, 0 for any number, and `layout` the order of their numbers in memory. `tokens`
    says how values of three axes are read.

    An adapter brings images to the network. `from_rgb` has the shares of red, green and blue in
    each channel; without them grey is the luminance. `fit` tells how other proportions become the
    subject's (see `tensors.FITS`). `squares`: the priors pixels and fourier draw squares for it, as
    before version 3 of `READINGS`.

    `embed_text` gives a text's embedding, where `output` is the layer of an image's, of length one.
    """

    name: str
    network: nn.Module
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    output: str = ""
    card: dict[str, Any] = field(default_factory=dict)
    batch: int = 0
    layout: torch.memory_format = torch.channels_last
    tokens: Tokens | None = field(default_factory=Tokens)
    fit: str = FITS[0]
    from_rgb: tuple[tuple[float, ...], ...] = ()
    squares: bool = False
    embed_text: Callable[[str], Tensor] | None = None

    @property
    def channels(self) -> int:
        """Return the number of channels of the network's input."""
        return len(self.mean)

    def fitted(self, images: Tensor) -> Tensor:
        """Return images (batch, c, height, width) in [0, 1] in the subject's channels and size."""
        images = recoloured(images, self.channels, self.from_rgb)
        return fitted(images, self.size, self.fit, self.border)

    @property
    def photograph_size(self) -> tuple[int, int]:
        """Return the size (height, width) of photographs for the subject.

        Where images are cut to its shape, it is the subject's own. Where they are stretched or
        padded, photographs are squares, as a generator's pictures are, and `fitted` does the same
        to both.
        """
        side = max(self.size)
        return self.size if self.fit == FITS[0] else (side, side)

    def rgb_shares(self) -> list[list[float]]:
        """Return the shares of red, green and blue in each channel; none where they are not said.

        RGB itself has none.
        """
        usual = {1: [list(LUMINANCE)]}
        return [list(row) for row in self.from_rgb] or usual.get(self.channels, [])

    @property
    def border(self) -> tuple[float, ...]:
        """Return the value of each channel around an image that is padded: the mean, in 0 … 1."""
        return tuple(min(max(each, 0.0), 1.0) for each in self.mean)

    @property
    def inputs(self) -> dict[str, dict[str, Any]]:
        """Return the shape and sha256 of each fixed input that the network has beside images."""
        network = plain(self.network)
        fixed = network.fixed if isinstance(network, WithInputs) else {}
        return {name: each.as_json() for name, each in fixed.items()}

    @property
    def frames(self) -> int:
        """Return for how many frames an image is held, 0 where the network reads single images."""
        network = plain(self.network)
        return network.frames if isinstance(network, WithInputs) else 0

    def prepare(self, images: Tensor) -> Tensor:
        """Return what the network reads of images in [0, 1], (batch, c, height, width).

        They have any size, and the subject's channels; RGB and grey also serve for one another.
        """
        if not images.is_floating_point():
            raise BadRequest(f"images lie in 0 … 1; got {images.dtype}, so divide by 255")
        if self.batch and len(images) > self.batch:
            raise BadRequest(f"{self.name} takes {self.batch} image at a time; got {len(images)}")
        images = self.fitted(images)
        mean = _colours(self.mean, images)
        std = _colours(self.std, images)
        prepared = ((images - mean) / std).contiguous(memory_format=self.layout)
        kind = number_type(self.network)
        return prepared if kind == torch.float32 else prepared.to(kind)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the network's output for images in [0, 1].

        Where that is several tensors, it is the first: the logits.
        """
        return first_tensor(self.network(self.prepare(images)))

    @cached_property
    def takes_autocast(self) -> bool:
        """Return whether the network runs under `torch.autocast` in bfloat16.

        Weights in half precision, quantized ones and code of one's own may not.
        """
        with suppress(Exception):  # of every kind: without autocast it says what is wrong
            images = self._blank()
            with torch.autocast(images.device.type, torch.bfloat16), without_gradients():
                run(self.network, images)
            return True
        return False

    def at_most(self, images: int) -> int:
        """Return as many images as it takes at once, and no more than these."""
        return min(images, self.batch or images)

    @cached_property
    def identity(self) -> str:
        """Return the hash of all that decides what the subject makes of an image.

        Of a file that holds the whole network it is the file's. Where code takes part, it covers
        the weights, the preprocessing, the names, and what every layer makes of one fixed image.
        """
        adapter = self._adapter()
        if not adapter:
            return self._identity
        told = json.dumps([self._identity, adapter], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()

    def _adapter(self) -> dict[str, Any]:
        """Return what is not usual about how images come to the network, and what was added."""
        inputs = {name: [told["shape"], told["sha256"]] for name, told in self.inputs.items()}
        added = self.card.get("dictionaries", {})
        parts = {each: [told["layer"], told["sha256"]] for each, told in added.items()}
        own = {"from_rgb": self.from_rgb, "inputs": inputs, "frames": self.frames}
        own |= {"dictionaries": parts}
        fit = {} if self.fit == FITS[0] else {"fit": self.fit}
        return fit | {name: value for name, value in own.items() if value}

    @cached_property
    def _identity(self) -> str:
        """Return the hash of the network and its preprocessing, without the adapter."""
        sha256 = self.card.get("sha256")
        if sha256 and self.card.get("source") != "python" and not self.made_by_library:
            return str(sha256)
        identity = {
            "weights": sha256 or sha256_of_weights(self.network),
            "look": [self.size, self.mean, self.std],
            "names": [self.output, self.classes],
            "layers": _behaviour(self),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    @property
    def former_identity(self) -> str:
        """Return the hash by which version 0.1.0 knew the subject.

        It does not cover the code and the preprocessing.
        """
        return str(self.card.get("sha256", self.name))

    @property
    def made_by_library(self) -> bool:
        """Return whether a library makes the network, and its name decides the preprocessing."""
        return self.card.get("source") in _LIBRARIES

    def reading(self, layers: Iterable[str]) -> AbstractContextManager[Read]:
        """Lend a function from what the network reads to its layers' activations (see `probe`)."""
        return probe(self.network, layers, self.tokens)

    def check_gradient(self, layers: Iterable[str]) -> None:
        """Refuse layers with `BadRequest` where no gradient comes through the network from one."""
        rng = torch.Generator().manual_seed(0)
        drawn = torch.rand(self.at_most(2), self.channels, *self.size, generator=rng)
        for layer in sorted(set(layers)):
            where = self._lost_gradient(drawn, layer)
            if where:
                raise BadRequest(
                    f"no gradient comes through {self.name} from {layer} to the image: it is lost "
                    f"{where}; no_grad, detach, rounding, quantization and checkpointing with "
                    "use_reentrant=True cut it"
                )

    def _lost_gradient(self, drawn: Tensor, layer: str) -> str:
        """Return where the gradient is lost; `BadRequest` where the network runs without alone."""
        try:
            with torch.enable_grad():
                images = self.prepare(drawn.to(device_of(self.network)))
                return lost_gradient(self.network, images, layer)
        except PhospheneError:
            raise
        except Exception as error:  # of every kind: other people's networks
            raise BadRequest(
                f"{self.name} answers only without gradients, so it can judge but not be climbed "
                f"({type(error).__name__}: {one_line(error)[:300]})"
            ) from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the output shape, without the batch, of every layer that runs.

        Dictionaries that were added to the subject count as layers.
        """
        return {name: shape for name, shape in self._shapes.items() if "@" not in name}

    def heads(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of the output of every attention head, ahead of its projection."""
        views = views_of(self.network).keys() - self._shapes.keys()
        return {name: shape for name, shape in self._view_shapes.items() if name in views}

    def shape(self, layer: str) -> tuple[int, ...]:
        """Return the shape of a layer or a view, without the batch; () where it gives nothing."""
        return self._shapes.get(layer) or self._view_shapes.get(layer, ())

    def channel_names(self, layer: str) -> tuple[str, ...]:
        """Return the names of a layer's channels: classes, or what a dictionary calls its features.

        () where they have no names.
        """
        if layer == self.output:
            return self.classes
        return tuple(self.card.get("channel_names", {}).get(layer, ()))

    def text_vector(self, text: str) -> tuple[float, ...]:
        """Return a text's embedding, a direction in the channels of `output`.

        The product of its unit vector with an image's embedding is their cosine similarity.
        `BadRequest` where the subject reads no texts.
        """
        if self.embed_text is None:
            raise BadRequest(
                f"{self.name} reads no texts; hf:OWNER/NAME of a CLIP or SigLIP model does"
            )
        return tuple(self.embed_text(text).tolist())

    def with_dictionary(self, name: str, layer: str, file: str | Path) -> Subject:
        """Return the subject with a dictionary's features as a layer of this name.

        `file` holds a sparse autoencoder, or directions, on the channels of `layer`; see
        `phosphene.dictionaries`. The subject's network stays as it is.
        """
        taken = {path.partition(".")[0] for path, _ in self.network.named_modules()}
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in {*taken, "class", "text"}:
            raise BadRequest(f"a dictionary's name is one of letters, and no layer's; got {name!r}")
        path = self.layer_path(layer)
        dictionary = read_dictionary(Path(file))
        channels = self.shape(path)[:1]
        if channels != (dictionary.inputs,):
            raise BadFile(
                f"{file} reads {dictionary.inputs:,} channels; {path} of {self.name} has "
                f"{channels[0] if channels else 'none'}"
            )
        told = {"layer": path, "sha256": dictionary.sha256}
        added = self.with_layer(name, path, dictionary, dictionary.names)
        dictionaries = {**self.card.get("dictionaries", {}), name: told}
        return replace(
            added,
            name=f"{self.name}+{name}:{path}={Path(file).name}",
            card={**added.card, "dictionaries": dictionaries},
        )

    def with_components(self, layer: str, components: Components) -> Subject:
        """Return the subject with the principal components of a layer as a layer of that name.

        `BadFile` where they are those of another number of units.
        """
        path, units = self.layer_path(layer), math.prod(self.shape(layer))
        if units != components.units:
            raise BadFile(
                f"{self.name}: layer {path} has {units:,} units; the components are those of "
                f"{components.units:,}"
            )
        return self.with_layer(COMPONENTS, path, components, ())

    def with_layer(self, name: str, layer: str, part: nn.Module, names: Sequence[str]) -> Subject:
        """Return the subject with a further layer, which makes its channels of another one's.

        Its identity does not cover what `part` makes of them.
        """
        network = extended(self.network, name, layer, part.to(device_of(self.network)))
        given = {**self.card.get("channel_names", {}), name: list(names)}
        return replace(self, network=network, card={**self.card, "channel_names": given})

    def token_names(self, layer: str) -> tuple[str, ...]:
        """Return the names of a layer's tokens ahead of its patches."""
        shapes = self._shapes if layer in self._shapes else self._view_shapes
        start = f"{layer}@"
        return tuple(name.removeprefix(start) for name in shapes if name.startswith(start))

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        added = list(self.network.parts) if isinstance(self.network, Extended) else []
        features = self._view_shapes if added else {}
        own = {name: shape for name, shape in features.items() if name.partition("@")[0] in added}
        with without_gradients():
            return layer_shapes(self.network, self._blank(), self.tokens) | own

    @cached_property
    def _view_shapes(self) -> dict[str, tuple[int, ...]]:
        with without_gradients():
            return view_shapes(self.network, self._blank(), self.tokens)

    def _blank(self) -> Tensor:
        """Return what the network reads of two black images, or of one where it takes no more."""
        # two images tell a batch from its images
        shape = (self.at_most(2), self.channels, *self.size)
        return self.prepare(torch.zeros(shape, device=device_of(self.network)))

    def as_read_by(self, version: int) -> Subject:
        """Return the subject as a record of this version of reading means it (see `READINGS`)."""
        if version == READINGS[2]:
            return self
        wide = self.size[0] != self.size[1]
        fit = "stretch" if wide else self.fit
        if version == READINGS[1]:
            return replace(self, fit=fit, squares=wide)
        size = tuple(self.card.get("size_0_1_0", self.size))
        return replace(self, size=size, tokens=None, fit=fit, squares=wide)

    def reading_version(self) -> int:
        """Return the version of reading that a record must state: the first that means the same."""
        if self.size[0] != self.size[1]:
            return READINGS[2]
        before = self.as_read_by(READINGS[0])
        same = before.size == self.size and before._shapes == self._shapes
        return READINGS[0] if same else READINGS[1]

    def layer_path(self, layer: str) -> str:
        """Return the path of a layer, which its last part may mean; `UnknownName` without one."""
        return layer_path(self.network, layer, self.name)

    def targets(self, text: str) -> list[Target]:
        """Return the targets that a text names: one, or one for each channel of a range."""
        return resolve(self, text)


def _colours(values: tuple[float, ...], images: Tensor) -> Tensor:
    """Return a number for each channel, (channels, 1, 1), on the images' device.

    The device is not waited for.
    """
    numbers = torch.tensor(values, dtype=images.dtype)[:, None, None]
    return numbers.to(images.device, non_blocking=True)


_LIBRARIES = ("torchvision", "timm", "transformers")
_MAX_COPIED = 200_000_000
"""Weights; a larger network is not copied in double precision."""


def _behaviour(subject: Subject) -> dict[str, str]:
    """Return how large every layer's values are for one fixed image, the same on all machines.

    In double precision, four digits do not depend on the order of sums. A network that does not
    run in it is told by its output alone, in three digits, on one thread.
    """
    shape = (1, subject.channels, *subject.size)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    if sum(each.numel() for each in subject.network.parameters()) <= _MAX_COPIED:
        with suppress(Exception):  # of every kind: not every network can be copied or made double
            copied = replace(subject, network=copy.deepcopy(subject.network).cpu().double())
            with without_gradients():
                sizes = layer_sizes(copied.network, copied.prepare(image.double()))
            least = 1e-9 * max([size for size in sizes.values() if math.isfinite(size)], default=0)
            return {layer: "0" if size <= least else f"{size:.3e}" for layer, size in sizes.items()}
    device = device_of(subject.network)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with without_gradients():
            sizes = layer_sizes(subject.network, subject.prepare(image.to(device)))
    finally:
        torch.set_num_threads(threads)
    return {"": f"{sizes.get('', 0.0):.2e}"}


_ADDED = re.compile(r"(.+)\+([A-Za-z_]\w*):([^=+]+)=([^=]+)")
"""SUBJECT+NAME:LAYER=FILE."""


def load_subject(
    name: str | Path, *, fit: str = "", inputs: Mapping[str, Any] = MappingProxyType({})
) -> Subject:
    """Return a subject by its name or file.

    `fit` is how images of other proportions become the subject's, its own way unless given.
    `inputs` are what a network of one's own reads beside images, by name: arrays or files of numpy.

    The name is a bundled one, or begins with `torchvision:`, `timm:`, `hf:`, `python:` or
    `efficientnet-lite`. `NAME@random` is the same network untrained, its weights drawn with seed 0:
    the control of what training did. `SUBJECT+NAME:LAYER=FILE` is the subject with the features of
    a dictionary on one of its layers as a layer of this name.
    """
    if not isinstance(inputs, Mapping):
        raise BadRequest(f"inputs are a dict of names and arrays; got {type_name(inputs)}")
    added = _ADDED.fullmatch(str(name))
    if added is not None and not Path(name).exists():
        subject = load_subject(added[1], fit=fit, inputs=inputs)
        return subject.with_dictionary(added[2], added[3], added[4])
    subject = _loaded(ALIASES.get(str(name), name), inputs)
    return replace(subject, fit=checked_fit(fit)) if fit else subject


def _tokens(network: nn.Module) -> Tokens:
    return tokens_of(network, token_names(network))


def _loaded(name: str | Path, inputs: Mapping[str, Any]) -> Subject:
    if inputs or is_source(str(name)):
        loaded = load_network(str(name), inputs)
        fields = {**vars(loaded), "output": loaded.output or last_layer(loaded.network)}
        subject = Subject(str(name), **fields, tokens=_tokens(loaded.network))
        beside = '; beside it, its factory may give {"size": PIXELS}'
        return _tried(subject, beside) if is_factory(str(name)) else subject
    trained = name if Path(name).is_file() else str(name).removesuffix("@random")
    file = weights.read(trained, "subject", SOURCES)
    with without_weights():
        network = build(file.card["architecture"])
    weights.fill(network, file.part("network"), file.path.name)
    check_card(file.card, network, file.path.name)
    preprocessing = file.card["preprocessing"]
    card = {**file.card, "sha256": file.sha256}
    suffix = ""
    if trained != name:
        suffix = "@random"
        card = {key: card[key] for key in card.keys() - {"measured", "history"}}
        card["sha256"] = f"{file.sha256}@random"
        with seeded_by_zero():
            network = build(file.card["architecture"]).requires_grad_(False).eval()
    return Subject(
        f"{file.name}{suffix}",
        network,
        tuple(preprocessing["size"]),
        tuple(preprocessing["mean"]),
        tuple(preprocessing["std"]),
        tuple(file.card.get("classes", ())),
        file.card.get("output", last_layer(network)),
        card,
    )


def check_card(card: dict[str, Any], network: nn.Module, source: str) -> None:
    """Refuse a card that is not of the form of a subject's with `BadFile`.

    Its network, preprocessing and class names are checked.
    """
    if hasattr(network, "image_size"):
        raise BadFile(f"{source} is no subject: architecture {card['architecture']} makes images")
    preprocessing = card.get("preprocessing")
    preprocessing = preprocessing if isinstance(preprocessing, dict) else {}
    size = preprocessing.get("size")
    mean = preprocessing.get("mean")
    std = preprocessing.get("std")
    classes = card.get("classes", [])
    output = card.get("output", "")
    right = {
        "size": _numbers(size, 2)
        and all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in size),
        "mean": isinstance(mean, list) and len(mean) <= MAX_CHANNELS and _numbers(mean, len(mean)),
        "std": _numbers(std, len(mean or ())) and min(std) > 0,
        "classes": isinstance(classes, list) and all(map(_is_name, classes)),
        "output": isinstance(output, str)
        and (not output or output in dict(network.named_modules())),
    }
    if isinstance(classes, list) and (odd := [name for name in classes if not _is_name(name)]):
        shown = repr(odd[0]) if len(repr(odd[0])) <= 60 else f"{repr(odd[0])[:60]}…"
        raise BadFile(
            f"{source}: {shown} is no class name; one has at most {MAX_NAME} letters, "
            "and no line breaks, tabs or other control characters"
        )
    if wrong := [name for name, fine in right.items() if not fine]:
        raise BadFile(f"{source}: its card's {wrong[0]} is not of the form that a subject's is")
    for key, numbers in (("mean", mean), ("std", std)):
        if problem := wrong_scale(key, numbers or ()):
            raise BadFile(f"{source}: its card's {problem}")


def _is_name(text: Any) -> bool:
    """Return whether this is a text of one line that can be shown."""
    return (
        isinstance(text, str)
        and len(text) <= MAX_NAME
        and not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text)
    )


def _numbers(values: Any, n: int) -> TypeGuard[list[float]]:
    return (
        isinstance(values, list)
        and len(values) == n
        and all(isinstance(value, (int, float)) and -1e30 < value < 1e30 for value in values)
    )


def _tried(subject: Subject, instead: str) -> Subject:
    """Return the subject after a first pass, with the number of images that it takes at once.

    `BadRequest` where that fails, outputs are not as many as names, or the network keeps a state.
    """
    with first_pass(subject.name, subject.size, instead, subject.network), without_gradients():
        batch = subject.batch or largest_batch(lambda images: _rows(subject, images))
        subject = replace(subject, batch=batch)
        shape = subject.shapes().get(subject.output)
    if shape:
        check_names(subject.name, shape[0], subject.classes)
    _check_memory(subject)
    return replace(subject, batch=1) if not subject.batch and _needs_one(subject) else subject


def _needs_one(subject: Subject) -> bool:
    """Return whether images must come one by one.

    So they must where what the network makes of an image depends on the others beside it: a batch
    norm without running statistics takes them of all images. A detector may run its layers on each
    image apart.
    """
    if not subject.shapes():
        return bool(replace(subject, batch=1).shapes())
    with without_gradients():
        together = _answer(subject, 2)
        alone = _answer(subject, 1)
    if together is None or alone is None or len(together) != 2:
        return False
    if not together.is_complex():
        together, alone = together.double(), alone.double()
    apart = float((together[:1] - alone).abs().max())
    return apart > COUPLED * float(together.abs().max())


def _rows(subject: Subject, images: int) -> int:
    """Return for how many images the network answers when it is given so many."""
    answer = _answer(subject, images)
    return images if answer is None or not answer.ndim else len(answer)


def _answer(subject: Subject, images: int) -> Tensor | None:
    """Return the network's output for images that are always the same; None if it is no tensor."""
    device = device_of(subject.network)
    shape = (max(images, 2), subject.channels, *subject.size)
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(0))[:images]
    output = run(subject.network, subject.prepare(drawn.to(device)))
    try:
        return first_tensor(output)
    except UnknownName:
        return None


def _check_memory(subject: Subject) -> None:
    """Refuse a subject with `BadRequest` where the same images get two different answers."""
    with without_gradients():
        first = _answer(subject, subject.at_most(2))
        second = _answer(subject, subject.at_most(2))
    if first is not None and second is not None:
        check_repeats(subject.name, first, second)


def wrap(
    network: nn.Module,
    *,
    size: int | tuple[int, int] = 224,
    channels: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    range: tuple[float, float] | None = None,
    classes: Sequence[str] = (),
    output: str = "",
    fit: str = FITS[0],
    from_rgb: Sequence[Sequence[float]] = (),
    inputs: Mapping[str, Any] = MappingProxyType({}),
    frames: int = 0,
    name: str = "",
) -> Subject:
    """Return any module of one's own as a subject; it is only put in eval mode.

    `size` is (height, width) in pixels, or one number. `channels` are found where they are not
    given. `mean` and `std` normalise values in `range`, which is 0 … 1 unless given; without them
    RGB has ImageNet's, and other channels are read as they are. `output` is the layer whose
    channels are the classes, the last linear one where it is "".

    `fit` and `from_rgb` are as for `Subject`. `inputs` are what `forward` reads beside images, by
    the names of its arguments: arrays (1, …) or (…), or files of numpy. With `frames`, the network
    reads (batch, channels, frames, height, width), and each image is held for so many.
    """
    if not isinstance(network, nn.Module):
        raise BadRequest(f"a subject is an nn.Module; got {type(network).__name__}")
    name = name or type(network).__name__
    network = with_inputs(name, ready(name, network), {"frames": frames}, inputs)
    given: dict[str, Any] = {"size": size, "classes": classes, "output": output}
    given |= {"fit": fit, "from_rgb": from_rgb}
    scaling = {"channels": channels, "mean": mean, "std": std, "range": range}
    given |= {key: value for key, value in scaling.items() if value is not None}
    options = checked_options(name, network, given)
    options["output"] = options["output"] or last_layer(network)
    options["layout"] = fitting_layout(network, options["size"], len(options["mean"]))
    subject = Subject(name, network, **options, tokens=_tokens(network))
    return _tried(subject, "; wrap(network, size=PIXELS) sets another size")


def outer_layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return layers that a reader would name.

    They are down to two levels, without activations inside of blocks. All are given where none is
    so near.
    """
    near = {
        name: shape
        for name, shape in shapes.items()
        if name.count(".") == 0 or (name.count(".") == 1 and name.rsplit(".")[-1].isdigit())
    }
    return near or dict(shapes)
