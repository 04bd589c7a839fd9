"""The network that a generator inverts.

It is found by what the generator's file says, and trusted only as far as that goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from phosphene.errors import BadFile, BadRequest
from phosphene.parameterizations import Generated, Parameterization
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import center_crop


def encoder_of(generated: Generated, trusted: str = "") -> Subject:
    """The encoder whose code the generator reads.

    The name comes from a file, so one that is code, `python:…`, is loaded only where it is the
    `trusted` one. `BadRequest` where it is not, or where the generator names none; `BadFile` where
    that encoder has other weights now.
    """
    name, inverted = generated.encoder, generated.card.get("encoder_sha256")
    if not name:
        raise BadRequest(
            "this generator does not say which encoder it inverts, so an image has no code in it"
        )
    if name.startswith("python:") and name != trusted:
        raise BadRequest(
            f"this generator inverts {name}, which is code; where you trust it, name it as the "
            "encoder or the subject"
        )
    encoder = load_subject(name)
    if inverted and inverted not in (encoder.identity, encoder.former_identity):
        raise BadFile(f"{name} is not the encoder that this generator was trained to invert")
    return encoder


def check_encoder(generated: Generated, given: str) -> None:
    """Refuse an encoder that somebody named and that is not the one that a generator inverts."""
    if given and given != generated.encoder:
        raise BadRequest(
            f"this generator inverts {generated.encoder or 'an encoder that it does not name'}, "
            f"not {given}; leave that out"
        )


@contextmanager
def encoding(
    parameterization: Parameterization, device: str | torch.device, trusted: str = ""
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Lend a function from images (n, 3, image_size, image_size) in [0, 1] to their codes (n, …)."""
    if not isinstance(parameterization, Generated):
        yield lambda images: torch.stack([parameterization.encode(image) for image in images])
        return
    encoder, layer, shape = (
        encoder_of(parameterization, trusted),
        parameterization.layer,
        parameterization.mean().shape,
    )
    encoder.network.to(device)
    with encoder.reading([layer]) as read:

        def encoded(images: Tensor) -> Tensor:
            with torch.no_grad():
                seen = center_crop(images.detach().float(), parameterization.seen)
                return read(encoder.prepare(seen))[layer].float().view(len(images), *shape)

        yield encoded


def _in_range(image: Tensor, slack: float = 0.01) -> bool:
    """Return whether all values lie in 0 … 1, but for what a resize may overshoot."""
    return bool(((image >= -slack) & (image <= 1 + slack)).all())


def encode(parameterization: Parameterization, image: Tensor, trusted: str = "") -> Tensor:
    """Return the code, without a batch axis, of a real image (3, image_size, image_size) in [0, 1].

    `BadRequest` where its values lie outside of that range.
    """
    if not image.is_floating_point() or not _in_range(image):
        low, high = float(image.min()), float(image.max())
        raise BadRequest(
            f"an image is RGB in 0 … 1; got {low:g} … {high:g} in {image.dtype}; "
            "write image / 255 for 0 … 255, (image + 1) / 2 for -1 … 1"
        )
    image = image.float()
    with encoding(parameterization, image.device, trusted) as encoded:
        return encoded(image[None])[0]
