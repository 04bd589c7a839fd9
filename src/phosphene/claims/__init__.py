"""The paper's claims, measured.

Expectations are written before, and each verdict follows from them. A claim is one file,
`cN_NAME.py`, with a `CLAIM`. Where some or all of it can be asked of any network, the file also has
`ANY_NETWORK`, which is a claim as well.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

from phosphene.claims.claim import Claim, Expectation, Findings
from phosphene.claims.experiment import Experiment
from phosphene.claims.runner import Result, run


def _modules() -> list[str]:
    """Return the names of the files that hold a claim, in the order of their numbers."""
    found = (re.fullmatch(r"c(\d+)_\w+", module.name) for module in pkgutil.iter_modules(__path__))
    return [match[0] for match in sorted(filter(None, found), key=lambda match: int(match[1]))]


def _listed(attribute: str) -> dict[str, Claim]:
    """Return the claims that the files hold under an attribute, by the claims' names."""
    modules = (importlib.import_module(f"{__name__}.{name}") for name in _modules())
    claims = (getattr(module, attribute, None) for module in modules)
    return {claim.name: claim for claim in claims if claim is not None}


CLAIMS = _listed("CLAIM")
"""By name, C1 … C8."""
ANY_NETWORK = _listed("ANY_NETWORK")
"""Those that any network can be asked."""

__all__ = [
    "ANY_NETWORK",
    "CLAIMS",
    "Claim",
    "Expectation",
    "Experiment",
    "Findings",
    "Result",
    "run",
]
