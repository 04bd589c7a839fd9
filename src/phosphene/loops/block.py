"""Several closed loops whose pictures are shown in one block, mixed with one another."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields

import torch

from phosphene.errors import BadRequest
from phosphene.loops.generation import (
    Generation,
    Presentation,
    checked_response,
    responses_of,
)
from phosphene.loops.loop import Loop, Told, notice


class Interleaved:
    """Run several loops as one: of several neurons, priors or optimizers.

    Each loop has a name of its own, with which the ids of its pictures begin, and its own log. The
    pictures of all are of one size. What one loop lacks is shown again beside the next generation
    of the others.
    """

    def __init__(self, loops: Sequence[Loop], seed: int = 0):
        names = [each.name for each in loops]
        if not loops or "" in names or len({*names}) < len(names):
            raise BadRequest(f"interleaved loops have a name each, all different; got {names}")
        self.loops = tuple(loops)
        self.seed = seed
        self._shown: Generation | None = None

    def __enter__(self) -> Interleaved:
        return self

    def __exit__(self, *error: object) -> None:
        with ExitStack() as stack:
            for each in self.loops:
                stack.push(each)

    @property
    def number(self) -> int:
        """Return how many generations are complete, of all loops together."""
        return sum(each.number for each in self.loops)

    @property
    def blocks(self) -> int:
        """Return how often pictures of the present generations were handed out."""
        return sum(each.blocks for each in self.loops)

    @property
    def is_over(self) -> bool:
        """Return whether every search is over."""
        return all(each.is_over for each in self.loops)

    def ask(self) -> Generation:
        """Return the pictures that all loops want to be shown, in one order."""
        asked = [each.ask() for each in self.loops if not each.is_over]
        if not asked:
            raise BadRequest(f"the searches are over after {self.number} generations")
        if len({each.images.shape[1:] for each in asked}) > 1:
            sizes = [list(each.images.shape[1:]) for each in asked]
            raise BadRequest(f"interleaved loops show pictures of one size; got {sizes}")
        if len({(each.place, each.background) for each in asked}) > 1:
            raise BadRequest("interleaved loops show pictures at one place, on one background")
        order = [(each, at) for each in asked for at in each.order]
        place = {self._key(presentation): presentation for _, presentation in order}
        rng = random.Random(self.seed * 1_000_003 + self.number)
        mixed = sorted(place, key=lambda key: rng.random())
        alike = len({each.codes.shape[1:] for each in asked}) == 1
        self._shown = Generation(
            self.number,
            torch.cat([each.codes for each in asked]) if alike else torch.empty(0),
            torch.cat([each.images for each in asked]),
            tuple(name for each in asked for name in each.ids),
            tuple(place[key] for key in mixed),
            asked[0].place,
            asked[0].background,
        )
        return self._shown

    def _key(self, presentation: Presentation) -> str:
        return f"{presentation.picture} {presentation.trial}"

    def tell(self, responses: object, *, done: bool = True) -> Told:
        """Take responses to the pictures of any of the loops (see `Loop.tell`)."""
        given = responses_of(responses, self._shown or self.ask())
        told = []
        silent: list[BadRequest] = []
        for loop in [each for each in self.loops if not each.is_over]:
            own = [each for each in given if each.picture.startswith(f"{loop.name}-")]
            own = [checked_response(each) for each in own]
            try:
                told.append(loop.tell(own, done=done))
            except BadRequest as error:  # none of its pictures was answered; the others go on
                silent.append(error)
        if silent and not told:
            raise silent[0]
        for each in silent:
            notice(str(each))
        prefixes = tuple(f"{loop.name}-" for loop in self.loops)
        if unknown := [each.picture for each in given if not each.picture.startswith(prefixes)]:
            notice(f"{len(unknown)} responses are to no loop's pictures, such as {unknown[0]!r}")
        counts = {
            each.name: sum(getattr(one, each.name) for one in told)
            for each in fields(Told)
            if each.name != "complete"
        }
        return Told(**counts, complete=all(one.complete for one in told))
