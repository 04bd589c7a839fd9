"""The paper's claims, measured: what is expected is written down before, and each verdict follows from numbers."""

from phosphene.claims import detectors, hidden, layers, neuron, priors, transfer, uses
from phosphene.claims.bench import Result, run
from phosphene.claims.claim import Claim, Expectation, Findings
from phosphene.claims.lab import Lab

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        priors.CLAIM,
        layers.CLAIM,
        transfer.DATA,
        transfer.ARCHITECTURE,
        hidden.CLAIM,
        detectors.CLAIM,
        neuron.CLAIM,
        uses.CLAIM,
    )
}
"""By name, C1 … C8."""
OWN: dict[str, Claim] = {
    claim.name: claim for claim in (priors.CLAIM, hidden.CLAIM, neuron.CONTROL)
}
"""Those that somebody's own network can be asked, of C7 the control."""

__all__ = ["CLAIMS", "OWN", "Claim", "Expectation", "Findings", "Lab", "Result", "run"]
