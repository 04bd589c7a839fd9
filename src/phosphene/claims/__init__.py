"""The paper's claims, measured: what is expected is written down before, and each verdict follows from numbers."""

from phosphene.claims import hidden, priors
from phosphene.claims.bench import Result, run
from phosphene.claims.claim import Claim, Expectation, Findings
from phosphene.claims.lab import Lab

CLAIMS: dict[str, Claim] = {claim.name: claim for claim in (priors.CLAIM, hidden.CLAIM)}
"""By name, C1 … C8."""

OWN: dict[str, Claim] = {name: CLAIMS[name] for name in ("C1", "C5")}
"""What can be measured of somebody's own network."""

__all__ = ["CLAIMS", "OWN", "Claim", "Expectation", "Findings", "Lab", "Result", "run"]
