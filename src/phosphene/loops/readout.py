"""What a closed loop climbs, of the responses of several channels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from phosphene.errors import BadRequest, type_name
from phosphene.units import parse


@dataclass(frozen=True)
class Readout:
    """One score from the responses of channels, always maximised.

    It is their sum, each times its weight. With `pattern`, it is the cosine between the responses
    and the weights: the population's vector is to point where the weights do, whatever its length.
    """

    weights: Mapping[str, float]
    pattern: bool = False

    def __post_init__(self) -> None:
        if not self.weights or not all(map(math.isfinite, self.weights.values())):
            raise BadRequest("a readout needs a channel, and weights that are finite numbers")
        if not any(self.weights.values()):
            raise BadRequest("a readout needs a weight that is not 0")

    @classmethod
    def of(cls, text: str) -> Readout:
        """Return the readout that a text means, in the grammar of units.

        `channel:3` is one channel, `channel:A7 - 0.5*channel:B2` a weighted sum, `-1*channel:3` the
        least response. A bare name is a channel.
        """
        if not isinstance(text, str):
            raise BadRequest(f"a readout is a text such as 'channel:3'; got {type_name(text)}")
        terms = parse(text if ":" in text else f'channel:"{text.strip()}"')
        weights: dict[str, float] = {}
        for term in terms:
            if (term.layer, term.position) != ("channel", "centre") or not term.channels:
                raise BadRequest(f"a readout is of channels, such as channel:3; got {text!r}")
            if "channel:" in term.channels:
                raise BadRequest(f"a sum has spaces: channel:A - 0.5*channel:B; got {text!r}")
            weights[term.channels] = weights.get(term.channels, 0.0) + term.weight
        return cls(weights)

    def __call__(self, responses: Mapping[str, float]) -> float:
        """Return the score of responses by channel; channels that are absent are left out."""
        there = {name: responses[name] for name in self.weights if name in responses}
        total = sum(self.weights[name] * value for name, value in there.items())
        if not self.pattern:
            return float(total)
        length = math.hypot(*there.values()) * math.hypot(*(self.weights[n] for n in there))
        return total / length if length else 0.0
