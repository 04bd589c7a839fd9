"""The paper's claims, measured: what is expected is written down before, and each verdict follows from numbers."""

from phosphene.claims import hidden, priors
from phosphene.claims.bench import Result, run
from phosphene.claims.claim import Claim, Expectation, Findings
from phosphene.claims.lab import Lab

CLAIMS: dict[str, Claim] = {claim.name: claim for claim in (priors.CLAIM, hidden.CLAIM)}
"""By name, C1 … C8."""

__all__ = ["CLAIMS", "Claim", "Expectation", "Findings", "Lab", "Result", "run"]
