"""Reference pictures, which a closed loop shows again in each generation."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from phosphene.errors import BadRequest
from phosphene.images import read_image, suffixes
from phosphene.priors import Prior
from phosphene.tensors import as_images, recoloured

MAX_REFERENCES = 1000


def read_references(folder: Path, prior: Prior) -> Tensor:
    """Return the photographs of a folder, in the order of their names, as the prior's pictures.

    They are (n, channels, height, width) in [0, 1], of the size that is shown.
    """
    if not folder.is_dir():
        raise BadRequest(f"{folder} is no folder of photographs")
    files = [each for each in sorted(folder.iterdir()) if each.suffix.lower() in suffixes()]
    if not 0 < len(files) <= MAX_REFERENCES:
        raise BadRequest(f"{folder} has {len(files)} photographs; 1 … {MAX_REFERENCES} are taken")
    images = as_images([read_image(file, prior.view_size) for file in files])
    return recoloured(images, prior.channels)
