"""What a prior can show of a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from phosphene.errors import BadRequest, type_name
from phosphene.files import path_of
from phosphene.images import kind_of, opened, to_pixels
from phosphene.pictures import Reconstructed, prior_that_encodes, reconstruct_image
from phosphene.priors import Prior


def reconstruct(
    image: str | Path | Image.Image | Tensor,
    *,
    prior: str | Path | Prior = "objects-fc6",
    encoder: str = "",
    out: str | Path | None = None,
    **options: Any,
) -> Reconstructed:
    """Encode a photograph and generate it again, as `phosphene reconstruct` does.

    Args:
        image: a photograph's file, a picture of Pillow, or an image (3, height, width) in [0, 1].
        prior: a generator's name or file, `python:module:factory` or a `Prior`.
        encoder: the generator's encoder, where that is code: `python:…`.
        out: a file for the photograph beside its reconstruction.
        **options: options of a prior from outside.

    Examples:
        >>> phosphene.reconstruct("photo.jpg").error
    """
    if out is not None:
        kind_of(path_of(out, "out"))
    picture = _picture(image)
    called = "" if isinstance(prior, Prior) else str(prior)
    if isinstance(prior, Prior):
        if options:
            raise BadRequest(f"a Prior has its own options; leave out {next(iter(options))}")
        loaded = prior
    else:
        loaded = prior_that_encodes(called, encoder, options)
    found = reconstruct_image(picture, loaded, encoder, called)
    if out is not None:
        found.save(out)
    return found


def _picture(image: object) -> Image.Image:
    """Return a photograph as Pillow has it; `BadRequest` where it is none."""
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if isinstance(image, (str, Path)):
        return opened(image)
    if not isinstance(image, Tensor):
        raise BadRequest(f"an image is a file, a picture or a tensor; got {type_name(image)}")
    wanted = "an image is a tensor (3, height, width) of floats in 0 … 1"
    if image.ndim != 3 or len(image) not in (1, 3) or not image.numel():
        raise BadRequest(f"{wanted}; got {list(image.shape)}")
    if not image.is_floating_point() or not bool(((image >= 0) & (image <= 1)).all()):
        low, high = image.aminmax()
        raise BadRequest(f"{wanted}; got {low:g} … {high:g} of {image.dtype}")
    return Image.fromarray(to_pixels(image.detach().cpu().float().numpy()))
