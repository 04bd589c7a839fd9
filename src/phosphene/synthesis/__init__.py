"""The climb: codes are moved until the subject's units answer most."""

from phosphene.synthesis.climb import CLIMBS, UNNAMED, Climb, setting_names, settings
from phosphene.synthesis.diverse import set_size
from phosphene.synthesis.inputs import with_input_scores, with_inputs
from phosphene.synthesis.loop import (
    MAX_AT_ONCE,
    PRECISIONS,
    check,
    checked_batch,
    checked_device,
    checked_precision,
    climb_all,
    climb_batch,
)
from phosphene.synthesis.results import (
    MAX_SEED,
    NOT_ABOVE,
    Member,
    PreferredInputs,
    joined,
    tiles,
)
from phosphene.synthesis.view import TOGETHER

__all__ = [
    "CLIMBS",
    "MAX_AT_ONCE",
    "MAX_SEED",
    "NOT_ABOVE",
    "PRECISIONS",
    "TOGETHER",
    "UNNAMED",
    "Climb",
    "Member",
    "PreferredInputs",
    "check",
    "checked_batch",
    "checked_device",
    "checked_precision",
    "climb_all",
    "climb_batch",
    "joined",
    "set_size",
    "setting_names",
    "settings",
    "tiles",
    "with_input_scores",
    "with_inputs",
]
