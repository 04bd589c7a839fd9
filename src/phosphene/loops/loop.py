"""The closed loop: pictures are asked for, responses are told, and every step is on the disk.

All that is random is a function of the seed. So the log needs to hold no optimizer's state: what
was told, told again, brings the search to where it was.
"""

from __future__ import annotations

import json
import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.errors import BadFile, BadRequest, Notice, type_name
from phosphene.files import path_of
from phosphene.images import to_pixels
from phosphene.loops.generation import (
    BLANK,
    Generation,
    Presentation,
    Response,
    checked_response,
    numbered,
    responses_of,
    sha256_of_codes,
    shuffled,
)
from phosphene.loops.readout import Readout
from phosphene.loops.session import FORMAT, Session
from phosphene.loops.trials import SHORTEST, Trials, drift_of, rises
from phosphene.priors import Prior
from phosphene.records import pixels_sha256
from phosphene.screen import Place, Screen
from phosphene.stimulus import Shape
from phosphene.subjects import Subject
from phosphene.synthesis import Climb
from phosphene.tensors import center_crop, resized

DRIFTS = ("none", "gain", "offset")
"""What the references' answers correct in the responses of a generation."""
REFERENCE = "reference-"


@dataclass(frozen=True)
class Told:
    """What became of responses that were told."""

    counted: int = 0
    repeated: int = 0
    """Told before, with the same value."""
    failed: int = 0
    """NaN, so their pictures are shown again."""
    late: int = 0
    """To an earlier generation; kept in the log, and not counted."""
    complete: bool = False
    """Whether the generation is complete, so that `ask` draws the next."""


@dataclass(repr=False)
class Loop:
    """A search for what a neuron prefers, one generation of pictures at a time.

    `climb` says the optimizer, the constraint, and the number of generations (`steps`). Each
    picture is shown `repeats` times in a generation, and so are the `references` (n, channels,
    height, width) in [0, 1]. `blanks` grey pictures are spread among them. `drift` corrects
    responses by the references: by their gain, or by an offset. A picture without a response is
    shown again, in up to `tries` blocks. `name` begins the ids of its pictures. `precision` is the
    generator's, float32 or bfloat16. With a `plateau`, the search is over when the mean score has
    not risen for so many generations, by the test of Mann and Kendall. The constraints of the
    climb's stimulus are of what a `subject` reads; without one, of the picture in 0 … 1 about 0.5.
    References keep them as well. With a `screen`, pictures have the size that they have on it, and
    the constraints are of them at that size. The log lies in `folder`; a folder that holds one goes
    on from there.

    `BadRequest` where the folder's log is of other settings.
    """

    prior: Prior
    climb: Climb
    folder: Path
    readout: Readout = field(default_factory=lambda: Readout.of("0"))
    seed: int = 0
    repeats: int = 1
    references: Tensor | None = None
    blanks: int = 0
    drift: str = "none"
    tries: int = 3
    name: str = ""
    precision: str = "float32"
    plateau: int = 0
    subject: Subject | None = None
    screen: Screen | None = None

    def __post_init__(self) -> None:
        self.folder = path_of(self.folder, "a loop's folder")
        self._check()
        self.optimizer = self.climb.make_optimizer()
        self._constrained = self.climb.make_constraint().fit(self.prior.statistics)
        self._fit_stimulus()
        self.optimizer.begin(
            self.prior.start(self.seed)[None], self.prior, self.climb.steps, [self.seed]
        )
        self.session = Session(self.folder)
        self.number = 0
        """Of the present generation; as many are complete."""
        self.history: list[list[float]] = []
        """The scores of each generation that is complete."""
        self._first_references: dict[str, float] | None = None
        self._late: set[tuple[str, int, str]] = set()
        self._begin_generation()
        try:
            self._replay()
        except BaseException:
            self.session.close()
            raise

    def __repr__(self) -> str:
        best = max((score for each in self.history for score in each), default=math.nan)
        scored = f", best response {best:.2f}" if self.history else ""
        return f"<Loop: {self.number} of {self.climb.steps} generations{scored}, {self.folder}>"

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *error: object) -> None:
        self.session.close()

    def _check(self) -> None:
        if not isinstance(self.prior, Prior):
            raise BadRequest(
                "a loop's prior is a Prior, such as that of "
                f"phosphene.priors.load_generated('objects-fc6'); got {type_name(self.prior)}"
            )
        if not isinstance(self.climb, Climb):
            raise BadRequest(
                "a loop's climb is a Climb, such as phosphene.CLIMBS['evolution']; "
                f"got {type_name(self.climb)}"
            )
        if not isinstance(self.readout, Readout):
            raise BadRequest(
                "a loop's readout is a Readout, such as phosphene.loops.Readout.of('channel:3'); "
                f"got {type_name(self.readout)}"
            )
        if self.drift not in DRIFTS:
            raise BadRequest(f"no drift {self.drift!r}; there are: {', '.join(DRIFTS)}")
        for name, least in (
            ("repeats", 1),
            ("tries", 1),
            ("blanks", 0),
            ("seed", 0),
            ("plateau", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise BadRequest(f"{name} must be a whole number from {least} on; got {value!r}")
        if not all(each.isalnum() or each in "._" for each in self.name):
            raise BadRequest(f"a loop's name has letters, digits, dots and _; got {self.name!r}")
        if 0 < self.plateau < SHORTEST:
            raise BadRequest(
                f"of fewer than {SHORTEST} generations no test says whether they rise; "
                f"got a plateau of {self.plateau}"
            )
        if self.references is not None:
            self._check_references(self.references)
        if self.drift != "none" and self.references is None:
            raise BadRequest(f"drift {self.drift!r} is measured by references; give some")
        if self.climb.steps < 1:
            raise BadRequest("a search has one generation at least; got steps 0")
        self._check_climb()

    def _check_climb(self) -> None:
        """Refuse what only a network can be asked for, and what only a gradient follows."""
        if self.climb.objective != "activation":
            raise BadRequest(
                f"what is climbed is the readout; leave out the objective {self.climb.objective}"
            )
        for name in ("cycle", "shift", "tv", "blur", "share"):
            if getattr(self.climb, name):
                raise BadRequest(f"a closed loop has no {name}: a neuron is shown what is drawn")
        if self.climb.make_optimizer().uses_gradient:
            raise BadRequest(
                f"optimizer {self.climb.optimizer} follows a gradient, and a neuron has none; "
                "take one that needs only scores, such as evolution"
            )

    def _check_references(self, references: Tensor) -> None:
        size = (self.prior.channels, *self.prior.view_size)
        wanted = f"references are a tensor (n, {', '.join(map(str, size))})"
        if not isinstance(references, Tensor) or not references.is_floating_point():
            raise BadRequest(f"{wanted} of floats; got {type_name(references)}")
        if references.ndim != 4 or not len(references) or references.shape[1:] != size:
            raise BadRequest(f"{wanted}, as the prior's pictures; got {list(references.shape)}")
        if not ((references >= 0) & (references <= 1)).all():  # NaN is neither
            least, most = references.aminmax()
            raise BadRequest(f"{wanted} in 0 … 1; got {least:g} … {most:g}")

    def _fit_stimulus(self) -> None:
        """Fit the constraints of pictures to what the prior draws and to what is shown."""
        prior = self.prior
        self._place: Place | None = self.screen.place(prior.view_size) if self.screen else None
        self._shape = Shape(prior.channels, self._place.size if self._place else prior.view_size)
        reader = self.subject or viewer(self._shape)
        stimulus = self.climb.stimulus
        self._background = stimulus.background_of(reader, prior.channels)
        self._project = stimulus.fit(reader, prior)
        self._project_shown = stimulus.fit(reader, self._shape)

    @property
    def settings(self) -> dict[str, Any]:
        """Return all that decides which pictures are shown, as the log keeps it."""
        shown = [] if self.references is None else [*map(_sha256, self.references)]
        return {
            "prior": [str(self.prior.name or self.prior), self.prior.identity],
            "climb": self.climb.as_json(),
            "readout": [dict(self.readout.weights), self.readout.pattern],
            "seed": self.seed,
            "repeats": self.repeats,
            "references": shown,
            "blanks": self.blanks,
            "drift": self.drift,
            "tries": self.tries,
            "name": self.name,
            "precision": self.precision,
            "plateau": self.plateau,
            "screen": self.screen.as_json() if self.screen else None,
        }

    def _replay(self) -> None:
        """Bring the search to where the log ends."""
        settings = {"event": "settings", "format": FORMAT, "settings": self.settings}
        events = [*self.session.events]
        if not events:
            self.session.append(settings)
            return
        former = events[0].get("settings", {})
        now = json.loads(json.dumps(self.settings))
        if wrong := [name for name in now if former.get(name) != now[name]]:
            raise BadRequest(
                f"{self.session.path} was started with another {wrong[0]}; give another folder, "
                "or what it was started with"
            )
        for event in events[1:]:
            self._take(event)
        self._finish(replayed=True)

    def _take(self, event: Mapping[str, Any]) -> None:
        """Take one event of the log."""
        if event.get("number") != self.number:
            raise BadFile(
                f"{self.session.path}: a line of generation {event.get('number')} stands where "
                f"generation {self.number} is; lines were removed or moved"
            )
        if event["event"] == "shown":
            if event["codes"] != sha256_of_codes(self._codes):
                raise BadRequest(
                    f"{self.session.path}: the search draws other codes for generation "
                    f"{event['number']} than the log says; go on with the version of phosphene and "
                    "of its libraries, and on the kind of processor, with which it was started"
                )
            self._show(tuple(Presentation(*each) for each in event["order"]))
        elif event["event"] == "responses":
            for picture, trial, channel, value in event["responses"]:
                value = math.nan if value is None else value
                self._trials.add(Response(picture, trial, channel, value))
            self._late.update((each[0], each[1], each[2]) for each in event.get("late", ()))
            self._block_over = event["done"]
        elif event["event"] == "scored":
            self._score(event["scores"])
            if self._first_references is None:
                self._first_references = event["references"]

    def _begin_generation(self) -> None:
        asked = self.optimizer.ask()
        flat = asked.flatten(0, 1)
        self._codes = self._constrained(flat)
        self._trials = Trials(self.readout.weights)
        self._presented: set[Presentation] = set()
        self._order: tuple[Presentation, ...] = ()
        self._asked: tuple[Presentation, ...] = ()
        self._shows = 0
        self._block_over = True
        self.__dict__.pop("_images", None)

    @property
    def own_ids(self) -> tuple[str, ...]:
        """Return the ids of the present generation's pictures that were drawn for it."""
        return self.ids[: len(self._codes)]

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of the present generation's pictures, references and blank."""
        found = [f"{self.number:04}-{i:03}" for i in range(len(self._codes))]
        found += [f"{REFERENCE}{i:03}" for i in range(self._references)]
        found += [BLANK] if self.blanks else []
        return tuple(self._prefix + each for each in found)

    @property
    def _told_as(self) -> str:
        """Return what a notice calls the present generation."""
        return f"{self.name + ': ' if self.name else ''}generation {self.number}"

    @property
    def _prefix(self) -> str:
        return f"{self.name}-" if self.name else ""

    @property
    def _references(self) -> int:
        return 0 if self.references is None else len(self.references)

    @cached_property
    def _images(self) -> Tensor:
        """Return the generation's pictures as they are shown, in steps of 1/255."""
        parts = [self._drawn(self._codes)]
        if self.references is not None:
            parts.append(self._project_shown(resized(self.references, self._shape.size)))
        if self.blanks:
            level = torch.tensor(self._background)[:, None, None]
            parts.append(level.expand(1, self._shape.channels, *self._shape.size))
        return (torch.cat(parts) * 255).round() / 255

    @torch.no_grad()
    def _drawn(self, codes: Tensor) -> Tensor:
        """Return the part of the images of codes that is shown."""
        with torch.autocast(codes.device.type, torch.bfloat16, self.precision == "bfloat16"):
            images = self.prior.images(codes).float()
        if self._place is None:
            return center_crop(self._project(images), self.prior.view_size).clamp(0, 1)
        view = center_crop(images, self.prior.view_size)
        return self._project_shown(resized(view, self._shape.size)).clamp(0, 1)

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Return this loop alone, as several that are interleaved are asked for theirs."""
        return (self,)

    @property
    def blocks(self) -> int:
        """Return how often pictures of the present generation were handed out."""
        return self._shows

    @property
    def is_over(self) -> bool:
        """Return whether all generations are complete, or the score rises no more."""
        return self.number >= self.climb.steps or (
            0 < self.plateau <= self.number and not rises(self.means[-self.plateau :])
        )

    @property
    def means(self) -> list[float]:
        """Return the mean score of each generation that is complete."""
        return [math.fsum(each) / len(each) for each in self.history]

    def ask(self) -> Generation:
        """Return the pictures to show next.

        Until the present generation is complete, it is returned again, with the presentations that
        have no response yet. `BadRequest` after the last one.
        """
        if self.is_over:
            raise BadRequest(f"the search is over after {self.number} generations")
        if self._is_block_over:
            order = self._wanted()
            event = {
                "event": "shown",
                "number": self.number,
                "codes": sha256_of_codes(self._codes),
                "pictures": dict(zip(self.ids, map(_sha256, self._images), strict=True)),
                "order": order,
                "time": time.time(),
            }
            self.session.append(event)
            self._show(order)
        order = tuple(each for each in self._order if not self._trials.has(*each))
        self._asked = order
        where = (self._place, self._background)
        return Generation(self.number, self._codes, self._images, self.ids, order, *where)

    @property
    def _is_block_over(self) -> bool:
        """Return whether the rig said so, or each presentation has a response or failed."""
        return self._block_over or all(self._trials.has(*each) for each in self._order)

    @property
    def begun(self) -> float:
        """Return when the search first showed pictures, in seconds since 1970; 0 before that.

        It tells this search from others whose pictures lie in the same exchange.
        """
        shown = (each for each in self.session.events if each["event"] == "shown")
        return float(next(shown, {"time": 0.0})["time"])

    def _show(self, order: tuple[Presentation, ...]) -> None:
        self._asked = order
        self._shows += 1
        self._block_over = False
        self._order = order
        self._presented.update(order)

    def _wanted(self) -> tuple[Presentation, ...]:
        """Return the presentations of a new block: all, or those that failed or never came."""
        if not self._shows:
            seed = self.seed * 1_000_003 + self.number
            blank = self._prefix + BLANK
            return shuffled(self._shown_ids, self.repeats, blank, self.blanks, seed)
        lacking = self._trials.lacking(self._shown_ids, self.repeats)
        random.Random(f"{self.seed} {self.number} {self._shows}").shuffle(lacking)
        shown = Counter(each.picture for each in self._presented)
        return numbered(lacking, shown)

    @property
    def _shown_ids(self) -> list[str]:
        return [name for name in self.ids if name != self._prefix + BLANK]

    def tell(self, responses: Any, *, done: bool = True) -> Told:
        """Take responses, write them to the log, and complete the generation where all are there.

        `responses` are as for `responses_of`. What was told before is not counted twice. Responses
        to pictures that were never shown are left out, with a `Notice`. `done` says that all that
        `ask` wanted was shown: what has no response by then is shown again, or is given up after
        `tries` blocks. Without it, more responses are awaited. `BadRequest` where no picture has
        a response by then; the responses are in the log, and `ask` shows all again.
        """
        generation = Generation(self.number, self._codes, self._codes, self.ids, self._asked)
        given = [checked_response(each) for each in responses_of(responses, generation)]
        fresh, repeated, late = self._sorted(given)
        if fresh or late or done:
            rows = [[each.picture, each.trial, each.channel, each.value] for each in fresh]
            apart = [[each.picture, each.trial, each.channel, each.value] for each in late]
            event = {"event": "responses", "number": self.number, "responses": rows}
            more = {"late": apart, "done": done, "time": time.time()}
            self.session.append({**event, **more})
        self._late.update((each.picture, each.trial, each.channel) for each in late)
        for each in fresh:
            self._trials.add(each)
        self._block_over = self._block_over or done
        if fresh and not done:
            self._tell_of_silence()
        failed = sum(each.value != each.value for each in fresh)
        return Told(len(fresh) - failed, repeated, failed, len(late), self._finish())

    def _tell_of_silence(self) -> None:
        """Tell where a block is answered, but never in a channel that the readout needs."""
        told = [self._trials.told(*each) for each in self._order]
        silent = [name for name in self.readout.weights if not any(name in each for each in told)]
        if told and all(told) and silent:
            others = ", ".join(sorted(set().union(*told))[:8])
            notice(
                f"every picture is answered in channel {others}; the readout waits for "
                f"channel {', '.join(silent)}"
            )

    def _sorted(self, given: Sequence[Response]) -> tuple[list[Response], int, list[Response]]:
        """Return what is new, how many were told before, and what is of earlier generations."""
        fresh: dict[tuple[str, int, str], Response] = {}
        repeated = 0
        late: dict[tuple[str, int, str], Response] = {}
        unknown = []
        for each in given:
            key = (each.picture, each.trial, each.channel)
            before = fresh[key].value if key in fresh else self._trials.value(*key)
            if before is not None:
                repeated += 1
                if before != each.value and not (before != before and each.value != each.value):
                    notice(
                        f"{each.picture}, trial {each.trial} was answered with {before:g} before; "
                        f"{each.value:g} is left out"
                    )
            elif Presentation(each.picture, each.trial) in self._presented:
                fresh[key] = each
            elif key in self._late or key in late:
                repeated += 1
            elif self._was_shown(each.picture):
                late[key] = each
            else:
                unknown.append(each.picture)
        if late:
            first = next(iter(late))[0]
            notice(
                f"{len(late)} responses are late, such as to {first}: its generation is complete; "
                "they are kept in the log, and not counted"
            )
        if unknown:
            notice(
                f"{len(unknown)} responses are to presentations that never were, such as "
                f"{unknown[0]!r}; they are left out"
            )
        return [*fresh.values()], repeated, [*late.values()]

    def _was_shown(self, picture: str) -> bool:
        """Return whether an earlier generation had a picture."""
        number = picture.removeprefix(self._prefix).partition("-")[0]
        return number.isdecimal() and int(number) < self.number

    def _finish(self, replayed: bool = False) -> bool:
        """Complete the generation where it can be; return whether it was."""
        lacking = self._trials.lacking(self._shown_ids, self.repeats)
        if not self._shows or (lacking and not self._gives_up(lacking, replayed)):
            return False
        means = self._trials.means(self._shown_ids)
        for channel in self._trials.silent:
            notice(f"{self._told_as}: channel {channel} gave no response")
        references = drift_of([means[name] for name in self._shown_ids if REFERENCE in name])
        first = self._first_references or references
        self._tell_of_drift(references, first)
        scores = self._trials.scores(self.own_ids, self.readout, self.drift, references, first)
        event = {"event": "scored", "number": self.number, "scores": scores}
        self.session.append({**event, "references": references, "time": time.time()})
        self._first_references = first
        self._score(scores)
        return True

    def _tell_of_drift(self, now: Mapping[str, float], first: Mapping[str, float]) -> None:
        """Tell of channels whose drift no reference shows."""
        if self.drift == "none":
            return
        for name in (each for each in self.readout.weights if each not in self._trials.silent):
            both = (now.get(name), first.get(name))
            no_gain = self.drift == "gain" and any(each is not None and each <= 0 for each in both)
            if None in both or no_gain:
                told = ", ".join("none" if each is None else f"{each:g}" for each in both)
                notice(
                    f"{self._told_as}: drift of channel {name} is not corrected; its mean "
                    f"response to the references now and first: {told}"
                )

    def _gives_up(self, lacking: Sequence[str], replayed: bool) -> bool:
        """Return whether the generation goes on without what is lacking; tell what becomes of it.

        It never does without any score: a channel that died may live again. `BadRequest` says so
        after the last try, unless a log is `replayed`.
        """
        if not self._is_block_over:
            return False
        lack = f"{self._told_as}: {len(set(lacking))} pictures lack responses"
        if self._shows < self.tries:
            failed = self._trials.failed(lacking)
            notice(f"{lack}, {failed} trials failed; they are shown again")
            return False
        if not self._trials.can_score(self.own_ids):
            if not replayed:
                raise BadRequest(
                    f"{lack} after {self._shows} blocks, and none has one of channel "
                    f"{', '.join(self._trials.channels)}; mend it and go on: they are shown again"
                )
            return False
        notice(f"{lack} after {self._shows} blocks; it goes on without them")
        return True

    def _score(self, scores: Sequence[float]) -> None:
        """Tell the optimizer what the generation's pictures scored, and draw the next one."""
        codes = self._codes.unflatten(0, (1, len(self._codes)))
        self.optimizer.tell(codes, torch.tensor([scores]), _no_gradient)
        self.history.append([*scores])
        self.number += 1
        self._begin_generation()

    def preferred(self) -> tuple[Tensor, Tensor]:
        """Return what the search would hand over: its code (*code), and the picture of it."""
        codes = self._constrained(self.optimizer.current())
        return codes[0], (self._drawn(codes)[0] * 255).round() / 255


def viewer(shape: Shape) -> Subject:
    """Return a subject that reads pictures as they are shown, about a middle grey."""
    grey = (0.5,) * shape.channels
    return Subject("viewer", nn.Identity(), shape.size, grey, (1.0,) * shape.channels)


def _sha256(image: Tensor) -> str:
    return pixels_sha256(to_pixels(image.numpy()))


def notice(text: str) -> None:
    """Tell a user of what was left out or given up."""
    warnings.warn(Notice(text), stacklevel=3)


def _no_gradient() -> Tensor:
    raise BadRequest("a neuron has no gradient")
