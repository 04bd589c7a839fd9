"""How to climb: the settings, those with a name, and how they are put together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from phosphene.code_statistics import needed
from phosphene.constraints import CONSTRAINTS, Constraint
from phosphene.errors import BadRequest, Notice
from phosphene.factories import is_factory, is_from_outside, users_code
from phosphene.objectives import load_objective
from phosphene.optimizers import CheckedOptimizer, Optimizer, load_optimizer
from phosphene.parts import Option, built_in, check_names, name_of, option, options_of, read_options
from phosphene.priors import Prior, check_gradient
from phosphene.stimulus import FREE, Stimulus

FORMER = {"rule": "optimizer", "prior": "constraint", "start": "distribution"}
"""Names of settings in version 0.1.0."""


def _present(name: str) -> str:
    """Return what a setting is called now, and say so where it had another name."""
    if name not in FORMER:
        return name
    warnings.warn(Notice(f"the setting {name} is called {FORMER[name]} now"), stacklevel=2)
    return FORMER[name]


@dataclass(frozen=True)
class Climb:
    """How to climb. Its parts are an optimizer, an objective and a constraint, each by its name.

    `options` are those that the parts declare, such as `rate` and `decay`. What an option is for is
    said where it is declared. `stimulus` are the constraints of the picture, whose names are
    settings as well. `optimizer` and `objective` may also be classes, and `objective` a
    function of activations (see `phosphene.objectives.FunctionObjective`).

    A climb that fails ends no higher than its random start, or with a unit that others of its layer
    exceed (`objectives.activation.FAINT`). `cycle` is PPGN's ε₁ (Nguyen et al. 2017), `redirect`
    the way of Olah et al. (2017).
    """

    steps: int = option(200, "Steps.", low=0, high=100_000)
    optimizer: Any = option(
        "whitened", "How codes move: whitened, mean, adam or python:MODULE:FACTORY."
    )
    objective: Any = option(
        "activation", "What is climbed: activation, cosine, probability or python:MODULE:FACTORY."
    )
    constraint: str = option(
        "gaussian", "What keeps codes plausible: gaussian, box or none.", choices=(*CONSTRAINTS,)
    )
    cycle: float = option(
        0.0, "Share of the way to the picture's own code in each step.", low=0, high=1
    )
    shift: int = option(0, "Largest random shift of the crop, in pixels.", low=0, high=10_000)
    distribution: str = option(
        "gaussian",
        "What random starts are drawn from: the code's gaussian, or normal.",
        choices=("gaussian", "normal"),
    )
    tv: float = option(0.0, "Weight of total variation.", low=0, high=1_000_000)
    tv_unit: str = option(
        "activation",
        "What total variation is weighed in: activation, or score, the score of the moment.",
        choices=("activation", "score"),
    )
    blur: float = option(0.0, "Blur of what the subject sees, in pixels.", low=0, high=1_000)
    redirect: bool = option(True, "Take a gradient of zero again through the ReLUs that shut it.")
    tries: int = option(
        4, "Starts from which a climb that fails is tried; the highest is kept.", low=1, high=100
    )
    keep: str = option("best", "The best code on the way or the last.", choices=("best", "last"))
    lower: str = option(
        "code",
        "How low a code may fall: as low as natural ones (code), or to zero.",
        choices=("code", "zero"),
    )
    share: float = option(
        0.0,
        "Pictures of one unit move apart, and each keeps this share of the best score; 0: none.",
        low=0,
        high=1,
    )
    differ: str = option("pixels", "What such pictures differ in: pixels, or a layer's name.")
    stimulus: Stimulus = FREE
    options: Mapping[str, Any] = field(default_factory=dict)

    def __new__(cls, *values: Any, **settings: Any) -> Climb:
        """Refuse with `BadRequest` a name that is no field, such as that of a part's option."""
        known = [each.name for each in fields(cls)]
        if unknown := [name for name in settings if name not in known]:
            raise BadRequest(
                f"Climb(…) takes no {unknown[0]!r}; Climb.of({unknown[0]}=…) takes the settings "
                "and the options of a climb's parts"
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, each in options_of(Climb).items():
            value = getattr(self, name)
            if name not in ("optimizer", "objective") or isinstance(value, str):
                each.checked(value)
        if not isinstance(self.options, Mapping):
            raise BadRequest(f"options are a dict of names and values; got {self.options!r}")

    @property
    def parts(self) -> dict[str, Any]:
        """Return the classes and functions of the parts. Names that are code run it."""
        return {
            "optimizer": load_optimizer(self.optimizer),
            "objective": load_objective(self.objective),
            "constraint": CONSTRAINTS[self.constraint],
        }

    def declared(self) -> dict[str, Option]:
        """Return the options of all parts by name; `BadRequest` where two have the same name."""
        found: dict[str, Option] = {}
        for kind, part in self.parts.items():
            own = options_of(part)
            taken = found.keys() | options_of(Climb).keys() | options_of(Stimulus).keys()
            twice = sorted(own.keys() & taken)
            if twice:
                raise BadRequest(f"the {kind}'s option {twice[0]!r} is another part's as well")
            found |= own
        return found

    @classmethod
    def of(cls, **values: Any) -> Climb:
        """Return a climb of these settings and options of its parts, all by their names."""
        return cls().changed(**values)

    def changed(self, **changes: Any) -> Climb:
        """Return the climb with changes. Options that only its former parts had are left out."""
        changes = {_present(name): value for name, value in changes.items()}
        own = options_of(Climb)
        shown = options_of(Stimulus)
        settings = {name: each for name, each in changes.items() if name in own}
        climb = replace(self, **read_options(own, settings, "a climb"))
        known = climb.declared()
        check_names("a climb", changes, [*own, *shown, *known])
        constraints = {name: each for name, each in changes.items() if name in shown}
        stimulus = climb.stimulus.changed(**constraints)
        options = {name: value for name, value in climb.options.items() if name in known}
        more = {name: each for name, each in changes.items() if name in known}
        options |= read_options(known, more, "a climb")
        return replace(climb, stimulus=stimulus, options=options).completed()

    def completed(self) -> Climb:
        """Return the climb with every option of its parts; `BadRequest` where one is of none."""
        known = self.declared()
        check_names("a climb", self.options, known)
        given = self.options
        full = {name: each.checked(given.get(name, each.default)) for name, each in known.items()}
        return replace(self, options=full)

    def make(self, kind: str) -> Any:
        """Return the function that makes a part, and the options that are its own."""
        part = self.parts[kind]
        own = {name: self.options[name] for name in options_of(part) if name in self.options}
        return part, own

    def make_optimizer(self) -> Optimizer:
        """Return a new optimizer; `BadRequest` where the factory makes something else."""
        part, options = self.make("optimizer")
        name = name_of(self.optimizer)
        with users_code(f"optimizer {name}"):
            made = part(**options)
        if not isinstance(made, Optimizer):
            raise BadRequest(f"{name} made {type(made).__name__}, which is no Optimizer")
        return CheckedOptimizer(made, name) if is_from_outside(made) else made

    def make_constraint(self) -> Constraint:
        """Return the constraint."""
        part, options = self.make("constraint")
        made: Constraint = part(**options)
        return made

    def as_json(self) -> dict[str, Any]:
        """Return the climb as a record keeps it."""
        kept = {each.name: getattr(self, each.name) for each in fields(self)}
        stimulus = kept.pop("stimulus").as_json()
        kept |= {"stimulus": stimulus} if stimulus else {}
        parts = {kind: name_of(kept[kind]) for kind in ("optimizer", "objective")}
        return {**kept, **parts, "options": dict(self.options)}

    @classmethod
    def from_record(cls, kept: Mapping[str, Any]) -> Climb:
        """Return the climb of a record; no code of a user runs.

        What version 0.1.0 did not name is as it was then.
        """
        if "rule" not in kept:
            stimulus = Stimulus.from_json(kept.get("stimulus", {}))
            climb = cls(**{**kept, "stimulus": stimulus})
        else:
            flat = {**UNNAMED, **{FORMER.get(name, name): each for name, each in kept.items()}}
            own = {name: flat.pop(name) for name in kept.keys() & FORMER_OPTIONS}
            climb = cls(**flat, options=own)
            climb = replace(climb, options={n: own[n] for n in own if n in climb.declared()})
        named = (climb.optimizer, climb.objective)
        return climb if any(is_factory(name) for name in named) else climb.completed()


def setting_names() -> set[str]:
    """Return the names of a climb's settings, and of all options of the built-in parts."""
    found = {*options_of(Climb), *options_of(Stimulus)}
    for name in built_in("phosphene.optimizers"):
        found |= options_of(load_optimizer(name)).keys()
    for part in CONSTRAINTS.values():
        found |= options_of(part).keys()
    return found


UNNAMED: dict[str, Any] = {"redirect": False, "tries": 1, "keep": "last", "lower": "zero"}
"""What a climb of version 0.1.0 did, whose records do not name these settings."""

FORMER_OPTIONS = {"rate", "last_rate", "sigmas", "decay"}
"""Settings of version 0.1.0 that are options of parts now."""

CLIMBS: dict[str, Climb] = {
    "default": Climb.of(decay=0.98),
    "short": Climb.of(steps=75, rate=0.3, momentum=0.8, decay=0.95),
    "paper": Climb.of(
        optimizer="mean",
        constraint="box",
        distribution="normal",
        redirect=False,
        tries=1,
        keep="last",
        rate=8.0,
        last_rate=1e-10,
    ),
    "pixels": Climb.of(
        steps=256,
        optimizer="adam",
        constraint="none",
        shift=4,
        tv=0.5,
        blur=0.5,
        rate=0.05,
        last_rate=0.05,
        decay=1.0,
    ),
    "fourier": Climb.of(
        steps=256,
        optimizer="adam",
        constraint="none",
        shift=4,
        rate=0.05,
        last_rate=0.05,
        decay=1.0,
    ),
    "evolution": Climb.of(
        steps=75,
        optimizer="evolution",
        constraint="none",
        tries=1,
        decay=1.0,
    ),
}
"""Settings by name.

They are ours, ours in fewer steps with momentum, the paper's as coded (method: §2), the two for
baselines without a learned prior, and those of a search that needs no gradient.
"""


def settings(climb: str | Climb, prior: Prior, /, **changes: Any) -> Climb:
    """Return settings by name, with changes; "default" means those that suit the prior.

    `changes` are settings of the climb and options of its parts; None is no change.
    """
    if isinstance(climb, str):
        name = prior.climb if climb == "default" else climb
        if name not in CLIMBS:
            raise BadRequest(f"no climb {name!r}; there are: {', '.join(CLIMBS)}")
        climb = _for_size(CLIMBS[name], changes, min(prior.view_size))
    if not isinstance(climb, Climb):
        raise BadRequest(f"a climb is a name or a phosphene.Climb; got {climb!r}")
    given = {name: value for name, value in changes.items() if value is not None}
    climb = climb.changed(**given)
    _check_fit(climb, prior)
    return climb


USUAL_SIDE = 224
"""Pixels of the shorter side for which `shift`, `tv` and `blur` of pixels and Fourier are meant."""

SMALL_TV = 0.015
"""Weight of total variation in shares of the score, where an image is smaller than that."""


def _for_size(climb: Climb, changes: Mapping[str, Any], side: int) -> Climb:
    """Return a climb that jitters and blurs images of a shorter side of `side` pixels less.

    The shift and the blur keep their share of the size. Total variation is weighed by the score,
    since answers of a small network have any scale. What `changes` name is left alone.
    """
    if side >= USUAL_SIDE:
        return climb
    share = side / USUAL_SIDE
    blur = round(climb.blur * share, 2)
    scaled: dict[str, Any] = {"shift": int(climb.shift * share)}
    scaled["blur"] = blur if blur >= NARROWEST else 0.0
    if climb.tv and changes.get("tv") is None:
        scaled |= {"tv": SMALL_TV, "tv_unit": "score"}
    return climb.changed(**scaled)


NARROWEST = 0.2
"""Pixels; a Gaussian that is narrower changes an image by less than 8 bits show."""


def _check_fit(climb: Climb, prior: Prior) -> None:
    """Refuse with `BadRequest` settings that a prior cannot be climbed with."""
    optimizer = climb.make_optimizer()
    climb.make_constraint().fit(prior.statistics)
    if optimizer.needs_statistics:
        needed(prior.statistics)
    side = min(prior.view_size)
    if climb.blur and 3 * climb.blur > side - 2:
        raise BadRequest(f"blur {climb.blur:g} is too wide for the {side} pixels that are seen")
    if optimizer.uses_gradient:
        check_gradient(prior)
    if climb.share and not optimizer.uses_gradient:
        raise BadRequest("share moves pictures apart along a gradient; leave it at 0")
    if climb.cycle and not optimizer.uses_gradient:
        raise BadRequest("cycle is for optimizers that follow a gradient; leave it at 0")
