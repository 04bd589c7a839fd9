"""A photograph encoded and generated again: what a prior can show of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from phosphene import images
from phosphene.errors import BadRequest
from phosphene.factories import is_factory, users_code
from phosphene.files import path_of
from phosphene.parts import read_options
from phosphene.priors import Prior, encode, load_generated, load_prior, prior_options
from phosphene.tensors import as_images, recoloured


@dataclass(frozen=True, eq=False, repr=False)
class Reconstructed:
    """Hold a photograph and what a prior makes of its code.

    Both images are float32 in [0, 1] (channels, height, width), at the prior's size. `prior` is the
    prior's name.
    """

    photograph: Tensor
    image: Tensor
    prior: str

    @property
    def error(self) -> float:
        """Return the mean absolute error, in shares of the range 0 … 1."""
        return float((self.image - self.photograph).abs().mean())

    def __repr__(self) -> str:
        size = " × ".join(map(str, self.image.shape[1:]))
        error = f"mean absolute error {self.error:.3f}"
        return f"<Reconstructed by {self.prior}: {size} pixels, {error}>"

    def sheet(self) -> images.Pixels:
        """Return the photograph beside its reconstruction."""
        pictures = [images.to_pixels(each.numpy()) for each in (self.photograph, self.image)]
        return images.contact_sheet(pictures, ["photograph", self.prior], 2, scale=2)

    def save(self, file: str | Path) -> Path:
        """Write both side by side, in the format that the name's suffix says."""
        place = path_of(file, "file")
        images.kind_of(place)
        images.write_picture(place, self.sheet())
        return place

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.sheet()).save(buffer, "png")
        return buffer.getvalue()


def prior_that_encodes(name: str, encoder: str, options: Mapping[str, Any]) -> Prior:
    """Return a prior from outside with its options, or a generator, whose encoder may be named.

    `BadRequest` where a prior from outside gets an encoder, or a generator gets options.
    """
    if is_factory(name):
        if encoder:
            raise BadRequest(f"prior {name} encodes by itself; leave the encoder out")
        return load_prior(name, None, read_options(prior_options(name), options, f"prior {name}"))
    if options:
        raise BadRequest(f"{name} has no option {next(iter(options))!r}; leave it out")
    generated = load_generated(name)
    generated.check_encoder(encoder)
    return generated


def reconstruct_image(
    picture: Image.Image, prior: Prior, encoder: str = "", called: str = ""
) -> Reconstructed:
    """Encode a photograph, cut to the prior's proportions, and generate it again.

    `encoder` is the one encoder whose code may run. `called` is the prior's name, as it was given.
    """
    name = called or str(prior.name or prior)
    pixels = np.asarray(images.cut_to(picture, prior.size))
    photograph = recoloured(as_images([pixels]), prior.channels)[0]
    with torch.no_grad(), users_code(f"prior {name}") if is_factory(name) else nullcontext():
        image = prior.images(encode(prior, photograph, encoder)[None])[0].clamp(0, 1)
    return Reconstructed(photograph, image, name)
