"""Pictures: climb into a folder, and make a record's picture again."""

from phosphene.pictures.estimate import Estimate, estimated
from phosphene.pictures.folder import (
    MAX_TILES,
    SHEET,
    check_kept,
    check_places,
    file_name,
    weights_of,
)
from phosphene.pictures.reconstruction import (
    Reconstructed,
    prior_that_encodes,
    reconstruct_image,
)
from phosphene.pictures.remake import (
    check_code,
    check_trusted,
    check_weights,
    climb_again,
    remake,
)
from phosphene.pictures.request import Made, Request, start_request, taken_options
from phosphene.pictures.run import Climber, Plan, climb_batches, climb_into, planned
from phosphene.pictures.versions import differences, versions

__all__ = [
    "MAX_TILES",
    "SHEET",
    "Climber",
    "Estimate",
    "Made",
    "Plan",
    "Reconstructed",
    "Request",
    "check_code",
    "check_kept",
    "check_places",
    "check_trusted",
    "check_weights",
    "climb_again",
    "climb_batches",
    "climb_into",
    "differences",
    "estimated",
    "file_name",
    "planned",
    "prior_that_encodes",
    "reconstruct_image",
    "remake",
    "start_request",
    "taken_options",
    "versions",
    "weights_of",
]
