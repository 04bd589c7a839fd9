"""Runs experiments one after the other, keeps what each found, and does none of them twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from phosphene import kept, weights
from phosphene.claims.claim import Claim, Findings, Verdict
from phosphene.claims.code import code_hash
from phosphene.claims.experiment import Experiment
from phosphene.errors import BadFile
from phosphene.files import read_json
from phosphene.forms.claim import ClaimResult, Judged
from phosphene.forms.form import Entry
from phosphene.pictures import versions

UNCOMPARED = {1: {"code", "data"}}
"""What of an older format's identity cannot be compared.

Version 0.1.0 knew data and code by other hashes.
"""


@dataclass(frozen=True)
class Result:
    """A claim with what was found of it: the content of OUT/NAME.json."""

    claim: Claim
    findings: Findings
    identity: dict[str, Any]
    seconds: float
    versions: dict[str, str] = field(default_factory=versions)
    """With which it was measured."""
    format: int = kept.FORMAT
    earlier: bool = False
    """Whether other code than this measured it."""
    kept: bool = False
    """Whether an earlier run measured it."""

    @property
    def note(self) -> str:
        """Return a sentence that says that other code measured it, or "" where this code did."""
        if not self.earlier:
            return ""
        return (
            f"Measured with version {self.versions.get('phosphene', 'unknown')} of phosphene, "
            "by other code than this; --anew measures it again."
        )

    @property
    def verdicts(self) -> list[Verdict]:
        """Return one verdict for each expectation."""
        return self.claim.verdicts(self.findings.numbers)

    @property
    def verdict(self) -> Verdict:
        """Return the verdict of the claim itself."""
        return self.claim.verdict(self.findings.numbers)

    def as_json(self) -> dict[str, Any]:
        """Return all that a reader needs to check it; pictures are files beside it."""
        found = self.findings
        expected = [
            Judged(
                **asdict(each),
                found=found.numbers[each.number],
                verdict=verdict,
                needed=each.needed(found.numbers[each.number]),
            )
            for each, verdict in zip(self.claim.expected, self.verdicts, strict=True)
        ]
        form = ClaimResult(
            format=self.format,
            claim=self.claim.name,
            title=self.claim.title,
            says=self.claim.says,
            note=self.note,
            verdict=self.verdict,
            level=self.claim.level,
            expected=tuple(expected),
            numbers=found.numbers,
            rows=found.rows,
            units=found.units,
            pictures=tuple((caption, Path(file).name) for caption, file in found.pictures),
            settings=found.settings,
            identity=self.identity,
            seconds=self.seconds,
            versions=self.versions,
        )
        return form.as_json()


def run(claims: Sequence[Claim], experiment: Experiment, resume: bool = True) -> Iterator[Result]:
    """Measure each claim, or read what an earlier run found.

    What was found is read where networks, data, seed and number of units are the same.
    What other code found is marked as `earlier`; without `resume` it is measured again.
    """
    for claim in claims:
        needed = {name: weights.locate(name)[1] for name in claim.needs}
        identity = {
            **experiment.identity,
            "weights": needed,
            "data": experiment.fingerprints(claim.data),
            "code": _code(claim),
        }
        earlier = read(claim, experiment.out)
        if earlier is not None:
            earlier = _compared(earlier, json.loads(json.dumps(identity)))
        if earlier is not None and (resume or not earlier.earlier):
            yield replace(earlier, kept=True)
            continue
        begun = time.monotonic()
        findings = claim.measure(experiment)
        result = Result(claim, findings, identity, time.monotonic() - begun)
        kept.write(experiment.out / f"{claim.name}.json", identity, result.as_json())
        yield result


def _compared(found: Result, identity: dict[str, Any]) -> Result | None:
    """Return what was kept, marked where other code measured it.

    None where it is of something else.
    """
    left_out = UNCOMPARED.get(found.format, {"code"})
    differ = {k for k in {*identity, *found.identity} if identity.get(k) != found.identity.get(k)}
    return replace(found, earlier=bool(differ)) if differ <= left_out else None


def _code(claim: Claim) -> str:
    """Return one hash of the code that measures a claim.

    This is its own file, and all of the package that it reaches.
    """
    own = getattr(claim.measure, "__module__", "").removeprefix("phosphene.")
    return code_hash([own, "claims.claim", "claims.experiment"])


def read(claim: Claim, out: Path) -> Result | None:
    """Return what an earlier run found, from OUT/NAME.json or else from OUT/claims.json.

    The second is the report's. None where nothing is there, or something of another form.
    """
    try:
        saved = kept.intact(out / f"{claim.name}.json") or _reported(claim, out / "claims.json")
        if saved is None:
            return None
        content = {**saved.content, "format": saved.format, "identity": saved.identity}
        found = ClaimResult.of(Entry(saved.path, content))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadFile):
        return None
    if not {each.number for each in claim.expected} <= found.numbers.keys():
        return None
    pictures = [(caption, out / "pictures" / Path(name).name) for caption, name in found.pictures]
    findings = Findings(found.numbers, found.rows, found.units, pictures, found.settings)
    return Result(
        claim, findings, found.identity, found.seconds, found.versions, format=found.format
    )


def _reported(claim: Claim, file: Path) -> kept.Kept | None:
    """Return what a report says of a claim, where there is one."""
    every = read_json(file) if file.exists() else []
    found = next((each for each in every if each["claim"] == claim.name), None)
    return found and kept.Kept(file, found, found["identity"], format=found["format"])
