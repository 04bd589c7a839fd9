"""A generator network as a prior: the codes that it was trained to invert."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from phosphene import weights
from phosphene.code_statistics import CodeStatistics, read_statistics
from phosphene.errors import BadFile, BadRequest
from phosphene.factories import is_factory
from phosphene.networks import build
from phosphene.networks.components import NAME as COMPONENTS
from phosphene.networks.components import Components, read_components
from phosphene.networks.empty import without_weights
from phosphene.networks.inspection import sha256_of_weights
from phosphene.priors._prior import Encode, Prior
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import center_crop


class Generated(Prior):
    """Make images by a generator. `encoder` names the subject whose `layer` it inverts.

    With `components`, the code is those of that layer, and `layer` is the one that reads them.
    """

    def __init__(
        self,
        generator: nn.Module,
        statistics: CodeStatistics,
        encoder: str = "",
        layer: str = "",
        card: dict[str, Any] | None = None,
        components: Components | None = None,
    ):
        self.generator = generator
        self.statistics: CodeStatistics = statistics
        self.encoder = encoder
        self.code_layer = layer
        self.layer = layer if components is None else COMPONENTS
        self.components = components
        self.card = card or {}
        self.name = str(self.card.get("name", ""))
        self.image_size = int(generator.image_size)  # type: ignore[arg-type]
        self.size = (self.image_size, self.image_size)

    @classmethod
    def load(cls, rest: str, subject: Subject | None = None) -> Generated:
        """Return a generator with its statistics: a bundled one by name, or a weights file."""
        checked = weights.read(rest, "generator")
        source = checked.path.name
        with without_weights():
            network = build(checked.card["architecture"])
        check_generator(network, checked.card, source)
        weights.fill(network, checked.part("network"), source)
        if not bool((cast("Tensor", network.code_std) > 0).all()):
            raise BadFile(f"{source} is damaged: code_std is not above 0 everywhere")
        code_shape = cast("tuple[int, ...]", network.code_shape)
        return cls(
            network,
            read_statistics(checked.part("code"), code_shape, source),
            str(checked.card.get("encoder", "")),
            str(checked.card.get("code_layer", "")),
            {**checked.card, "sha256": checked.sha256},
            read_components(checked.part("components"), code_shape, source),
        )

    @property
    def identity(self) -> str:
        """Return the hash of the generator's file, or of its weights."""
        known = self.card.get("sha256", self.name)
        return str(known) or sha256_of_weights(self.generator)

    @property
    def view_size(self) -> tuple[int, int]:
        side = int(self.generator.view_size)  # type: ignore[arg-type]
        return side, side

    def images(self, codes: Tensor) -> Tensor:
        return self.generator(codes)

    @contextmanager
    def encoding(self, device: str | torch.device, trusted: str = "") -> Iterator[Encode]:
        encoder = self.load_encoder(trusted)
        encoder.network.to(device)
        with encoder.reading([self.layer]) as read:

            def encoded(images: Tensor) -> Tensor:
                with torch.no_grad():
                    view = center_crop(images.detach().float(), self.view_size)
                    code = read(encoder.prepare(view))[self.layer].float()
                    return code.view(len(images), *self.mean().shape)

            yield encoded

    def load_encoder(self, trusted: str = "") -> Subject:
        """Return the encoder whose code the generator reads.

        The name comes from a file, so one that is code, `python:…`, is loaded only where it is the
        `trusted` one. `BadRequest` where it is not, or where the generator names none; `BadFile`
        where that encoder has other weights now.
        """
        name = self.encoder
        inverted = self.card.get("encoder_sha256")
        if not name:
            raise BadRequest(
                "this generator does not say which encoder it inverts, so an image has no code "
                "in it"
            )
        if is_factory(name) and name != trusted:
            raise BadRequest(
                f"this generator inverts {name}, which is code; where you trust it, name it as the "
                "encoder or the subject"
            )
        encoder = load_subject(name)
        if inverted and inverted not in (encoder.identity, encoder.former_identity):
            raise BadFile(f"{name} is not the encoder that this generator was trained to invert")
        if self.components is not None:
            return encoder.with_components(self.code_layer, self.components)
        return encoder

    def check_encoder(self, given: str) -> None:
        """Refuse an encoder that somebody named and that is not the one that it inverts."""
        if given and given != self.encoder:
            raise BadRequest(
                f"this generator inverts {self.encoder or 'an encoder that it does not name'}, "
                f"not {given}; leave that out"
            )


def check_generator(network: nn.Module, card: Mapping[str, Any], source: str) -> None:
    """Refuse a card that describes no generator with `BadFile`."""
    if not hasattr(network, "image_size"):
        raise BadFile(
            f"{source} is no generator: architecture {card['architecture']} makes no images"
        )
