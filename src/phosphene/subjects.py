"""The network under study, with its way of looking at an image and the names of its classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from phosphene import weights
from phosphene.errors import BadFile, BadRequest, UnknownName
from phosphene.networks import build
from phosphene.networks.external import LOADERS, is_external, load_external
from phosphene.networks.outside import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    at_once,
    bare,
    check_names,
    checked_options,
    fitting_layout,
    looking,
    looking_without_gradients,
    number_type,
    seeded_by_zero,
    wrong_scale,
)
from phosphene.probe import first_tensor, layer_path, layer_shapes, run
from phosphene.tensors import device_of, resized
from phosphene.units import Target, Term, Unit, channel_range, parse

MOST_TARGETS = 20_000
"""A longer list of targets in one call is taken for a slip."""

ALIASES = {"caffenet-random": "caffenet-objects@random"}

LARGEST_SIDE = 4096
"""Pixels; a weights file that asks for larger images is refused."""


LONGEST_NAME = 500
"""Letters of a class's name, with its synonyms."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A frozen network that reads `size` (height, width) pixels, normalised by `mean` and `std` on [0, 1] RGB.

    `output` is the layer whose channels are the classes ("" when unknown). `card` holds what its weights
    file says of it. `batch` is the most images that it takes at once, 0 for any number, and
    `layout` the order of their numbers in memory.
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

    def prepare(self, images: Tensor) -> Tensor:
        """RGB in [0, 1], (batch, 3, height, width) of any size, to what the network reads."""
        if not images.is_floating_point():
            raise BadRequest(f"images are RGB in 0 … 1; got {images.dtype}, so divide by 255")
        if self.batch and len(images) > self.batch:
            raise BadRequest(f"{self.name} takes {self.batch} image at a time; got {len(images)}")
        images = resized(images, self.size)
        mean, std = (
            torch.tensor(each, dtype=images.dtype)[:, None, None] for each in (self.mean, self.std)
        )
        mean, std = (
            each.to(images.device, non_blocking=True) for each in (mean, std)
        )  # no wait for the device
        seen = ((images - mean) / std).contiguous(memory_format=self.layout)
        kind = number_type(self.network)
        return seen if kind == torch.float32 else seen.to(kind)

    def __call__(self, images: Tensor) -> Tensor:
        """The network's output for RGB images in [0, 1]; where that is several tensors, the first: the logits."""
        return first_tensor(self.network(self.prepare(images)))

    def at_most(self, images: int) -> int:
        """As many images as it takes at once, and no more than these."""
        return min(images, self.batch or images)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Output shape, without the batch, of every layer that runs."""
        return dict(self._shapes)

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        parameter = next(self.network.parameters(), torch.zeros(()))
        blank = torch.zeros(
            self.at_most(2), 3, *self.size, device=parameter.device
        )  # two tell a batch from its images
        return layer_shapes(self.network, self.prepare(blank))

    def targets(self, text: str) -> list[Target]:
        """The targets that a text names (see `units`): one, or one for each channel of a range."""
        terms = parse(text)
        if len(terms) == 1:
            (term,) = terms
            return [
                Target(((term.weight, unit),), self._label(unit, term))
                for unit in self._units(term)
            ]
        found = []
        for term in terms:
            units = self._units(term)
            if len(units) != 1:
                raise BadRequest(
                    f"{term.layer}:{term.channels} names {len(units)} units; a sum takes one unit in each term"
                )
            found.append((term.weight, units[0]))
        return [
            Target(
                tuple(found),
                " ".join(_signed(weight, self._label(unit)) for weight, unit in found).removeprefix(
                    "+ "
                ),
            )
        ]

    def _units(self, term: Term) -> list[Unit]:
        if term.layer == "class":
            layer, channel = self._output(), self._class(term.channels, term.quoted)
            term = replace(term, layer=layer, channels=str(channel), quoted=False)
        term = replace(term, layer=layer_path(self.network, term.layer, self.name))
        shape = self.shapes().get(term.layer)
        if shape is None or not shape:
            raise UnknownName(
                f"{self.name}: layer {term.layer!r} gives no activations for an image"
            )
        channels = None if term.quoted else channel_range(term.channels)
        if term.channels == "all" and not term.quoted:
            channels = list(range(shape[0]))
        if channels is None:
            if term.layer != self.output:
                raise UnknownName(
                    f"{term.layer}:{term.channels}: only the output layer ({self.output or 'unknown here'}) "
                    f"has names; {term.layer} has channels 0 … {shape[0] - 1}"
                )
            channels = [self._class(term.channels)]
        if wrong := [channel for channel in channels if channel >= shape[0]]:
            raise UnknownName(
                f"{self.name}: {term.layer} has {shape[0]} channels, 0 … {shape[0] - 1}; got {wrong[0]}"
            )
        if isinstance(term.position, tuple):
            limits = tuple(shape[1:])
            if len(limits) != 2:
                raise BadRequest(
                    f"{term.layer} has no map, so no position; write {term.layer}:{term.channels}"
                )
            if any(p >= limit for p, limit in zip(term.position, limits, strict=True)):
                raise BadRequest(
                    f"{term.layer} has a map of {limits[0]} rows and {limits[1]} columns, counted from 0; "
                    f"got @{term.position[0]},{term.position[1]}"
                )
        position = term.position if len(shape) > 1 else "centre"
        return [Unit(term.layer, channel, position) for channel in channels]

    def _output(self) -> str:
        if not self.output or not self.classes:
            raise UnknownName(
                f"{self.name} has no class names; write LAYER:CHANNEL (`phosphene layers {self.name}`)"
            )
        return self.output

    def _class(self, name: str, quoted: bool = True) -> int:
        """Return the class that a name means.

        A whole name comes first, then a synonym, both in the letters as typed before any others. A bare
        number that names no class is a channel. The last resort is the only class with that word in it.
        """
        if not self.classes:
            raise UnknownName(f"{self.name} has no class names; write LAYER:CHANNEL")
        wanted = _plain(name)
        names = [_plain(each) for each in self.classes]
        synonyms = [[part.strip() for part in each.split(",")] for each in names]
        found = _named(wanted, names, synonyms)
        bare = not quoted and re.fullmatch(r"[0-9]{1,9}", wanted)
        if not found and bare and int(wanted) < len(names):
            return int(wanted)
        if not found:
            word = re.compile(rf"\b{re.escape(wanted.lower())}\b")
            found = [i for i, each in enumerate(synonyms) if word.search(", ".join(each).lower())]
        if not found:
            known = [part.lower() for each in synonyms for part in each]
            near = get_close_matches(wanted.lower(), known, n=3, cutoff=0.5)
            near = near or get_close_matches(wanted.lower(), known, n=3, cutoff=0.0)
            raise UnknownName(f"{self.name} has no class {name!r}; near: {', '.join(near)}")
        if len(found) > 1:
            layer = self.output or "LAYER"
            some = ", ".join(f"{names[i].split(',')[0]!r} ({layer}:{i})" for i in found[:4])
            raise UnknownName(
                f"{self.name}: {name!r} fits {len(found)} classes: {some}; write {layer}:{found[0]}"
            )
        return found[0]

    def _label(self, unit: Unit, term: Term | None = None) -> str:
        sign = "" if term is None or term.weight == 1 else f"{term.weight:g} × "
        if unit.layer == self.output and unit.channel < len(self.classes):
            return sign + self.classes[unit.channel].split(",")[0]
        return sign + str(unit)


def load_subject(name: str | Path) -> Subject:
    """A subject by bundled name, file, or `torchvision:`, `timm:`, `hf:`, `python:`, `efficientnet-lite…` name.

    `NAME@random` is the same network untrained, its weights drawn with seed 0: the control of what training did.
    """
    name = ALIASES.get(str(name), name)
    if is_external(str(name)):
        outside = load_external(str(name))
        subject = Subject(
            str(name),
            outside.network,
            outside.size,
            outside.mean,
            outside.std,
            outside.classes,
            outside.output or _last_layer(outside.network),
            outside.card,
            outside.batch,
            outside.layout,
        )
        beside = '; beside it, its factory may give {"size": PIXELS}'
        return _tried(subject, beside) if str(name).startswith("python:") else subject
    trained = name if Path(name).is_file() else str(name).removesuffix("@random")
    file = weights.read(trained, "subject", LOADERS)
    with torch.device("meta"):
        network = build(file.card["architecture"])
    weights.fill(network, file.part("network"), file.path.name)
    check_card(file.card, network, file.path.name)
    look, card = file.card["preprocessing"], {**file.card, "sha256": file.sha256}
    if trained != name:
        card = {
            **{key: card[key] for key in card.keys() - {"measured", "history"}},
            "sha256": f"{file.sha256}@random",
        }
        with seeded_by_zero():
            network = build(file.card["architecture"]).requires_grad_(False).eval()
    return Subject(
        file.name if trained == name else f"{file.name}@random",
        network,
        tuple(look["size"]),
        tuple(look["mean"]),
        tuple(look["std"]),
        tuple(file.card.get("classes", ())),
        file.card.get("output", _last_layer(network)),
        card,
    )


def check_card(card: dict[str, Any], network: nn.Module, source: str) -> None:
    """`BadFile` where a card's network, preprocessing or class names are not of the form of a subject's."""
    if hasattr(network, "image_size"):
        raise BadFile(f"{source} is no subject: architecture {card['architecture']} makes images")
    look, classes, output = (
        card.get("preprocessing"),
        card.get("classes", []),
        card.get("output", ""),
    )
    look = look if isinstance(look, dict) else {}
    size, mean, std = (look.get(name) for name in ("size", "mean", "std"))
    right = {
        "size": _numbers(size, 2)
        and all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in size),
        "mean": _numbers(mean, 3),
        "std": _numbers(std, 3) and min(std) > 0,
        "classes": isinstance(classes, list) and all(map(_is_name, classes)),
        "output": isinstance(output, str)
        and (not output or output in dict(network.named_modules())),
    }
    if isinstance(classes, list) and (odd := [name for name in classes if not _is_name(name)]):
        told = repr(odd[0]) if len(repr(odd[0])) <= 60 else f"{repr(odd[0])[:60]}…"
        raise BadFile(
            f"{source}: {told} is no class name; one has at most {LONGEST_NAME} letters, "
            "and no line breaks, tabs or other control characters"
        )
    if wrong := [name for name, fine in right.items() if not fine]:
        raise BadFile(f"{source}: its card's {wrong[0]} is not of the form that a subject's is")
    for key, numbers in (("mean", mean), ("std", std)):
        if problem := wrong_scale(key, numbers or ()):
            raise BadFile(f"{source}: its card's {problem}")


def _is_name(text: Any) -> bool:
    """A text of one line that can be shown."""
    return (
        isinstance(text, str)
        and len(text) <= LONGEST_NAME
        and not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text)
    )


def _numbers(values: Any, n: int) -> TypeGuard[list[float]]:
    return (
        isinstance(values, list)
        and len(values) == n
        and all(isinstance(value, (int, float)) and -1e30 < value < 1e30 for value in values)
    )


def _tried(subject: Subject, instead: str) -> Subject:
    """Return the subject once it has looked at images, with the number that it takes at once.

    `BadRequest` where it cannot look, has not as many outputs as names, or remembers what it saw.
    """
    door = looking(subject.name, subject.size, instead, subject.network)
    with door, looking_without_gradients():
        batch = subject.batch or at_once(lambda images: _rows(subject, images))
        subject = replace(subject, batch=batch)
        shape = subject.shapes().get(subject.output)
    if shape:
        check_names(subject.name, shape[0], subject.classes)
    _check_memory(subject)
    return subject


def _rows(subject: Subject, images: int) -> int:
    """Return for how many images the network answers when it is shown so many."""
    answer = _answer(subject, images)
    return images if answer is None or not answer.ndim else len(answer)


def _answer(subject: Subject, images: int) -> Tensor | None:
    """Return what the network says of images that are always the same; None if it is no tensor."""
    device = device_of(subject.network)
    shown = torch.rand(images, 3, *subject.size, generator=torch.Generator().manual_seed(0))
    said = run(subject.network, subject.prepare(shown.to(device)))
    try:
        return first_tensor(said)
    except UnknownName:
        return None


def _check_memory(subject: Subject) -> None:
    """`BadRequest` where the same images get another answer the second time."""
    with looking_without_gradients():
        first, second = (_answer(subject, subject.at_most(2)) for _ in range(2))
    if first is None or second is None:
        return
    if first.shape != second.shape or not torch.allclose(
        first.double(), second.double(), rtol=1e-3, atol=1e-6, equal_nan=True
    ):
        raise BadRequest(
            f"{subject.name} gives another answer when it sees the same images again, so it keeps "
            "a state or draws random numbers; begin its forward without either"
        )


def wrap(
    network: nn.Module,
    *,
    size: int | tuple[int, int] = 224,
    mean: float | Sequence[float] = IMAGENET_MEAN,
    std: float | Sequence[float] = IMAGENET_STD,
    classes: Sequence[str] = (),
    output: str = "",
    name: str = "",
) -> Subject:
    """Return any module of one's own as a subject; it is only put in eval mode.

    `size` is (height, width) in pixels, or one number; `mean` and `std` are for RGB in 0 … 1.
    `output` is the layer whose channels are the classes, the last linear one where it is "".
    """
    if not isinstance(network, nn.Module):
        raise BadRequest(f"a subject is an nn.Module; got {type(network).__name__}")
    name = name or type(network).__name__
    network = bare(name, network).eval()
    said = {"size": size, "mean": mean, "std": std, "classes": classes, "output": output}
    options = checked_options(name, network, said)
    options["output"] = options["output"] or _last_layer(network)
    layout = fitting_layout(network, options["size"])
    subject = Subject(name, network, **options, layout=layout)
    return _tried(subject, "; wrap(network, size=PIXELS) sets another size")


def _last_layer(network: nn.Module) -> str:
    """The last linear layer or 1×1 convolution, where a classifier's logits are."""
    linear = [
        path
        for path, module in network.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d))
    ]
    return linear[-1] if linear else ""


def _plain(name: str) -> str:
    """Return a class's name in one form: accents composed, no spaces at its ends."""
    return unicodedata.normalize("NFC", name).strip()


def _named(wanted: str, names: Sequence[str], synonyms: Sequence[Sequence[str]]) -> list[int]:
    """Return the classes that have exactly this name, by the strictest comparison that finds any."""
    folded = wanted.lower()
    tests: list[Callable[[int], bool]] = [
        lambda i: names[i] == wanted,
        lambda i: names[i].lower() == folded,
        lambda i: wanted in synonyms[i],
        lambda i: folded in [part.lower() for part in synonyms[i]],
    ]
    for fits in tests:
        if found := [i for i in range(len(names)) if fits(i)]:
            return found
    return []


def _signed(weight: float, label: str) -> str:
    sign = "-" if weight < 0 else "+"
    return f"{sign} {label}" if abs(weight) == 1 else f"{sign} {abs(weight):g} × {label}"


def outer_layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Layers that a reader would name: down to two levels, without activations inside of blocks."""
    return {
        name: shape
        for name, shape in shapes.items()
        if name.count(".") == 0 or (name.count(".") == 1 and name.rsplit(".")[-1].isdigit())
    }
