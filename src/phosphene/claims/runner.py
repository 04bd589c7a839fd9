"""Runs experiments one after the other, keeps what each found, and does none of them twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from phosphene import weights
from phosphene.claims.claim import Claim, Findings, Verdict
from phosphene.claims.code import code_hash
from phosphene.claims.experiment import Experiment
from phosphene.files import read_json, write_json
from phosphene.runs import versions
from phosphene.statistics import Figure

FORMAT = 2
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
    format: int = FORMAT
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
        """Everything that a reader needs to check it; pictures are files beside it."""
        expected = [
            {
                **asdict(each),
                "found": asdict(self.findings.numbers[each.number]),
                "verdict": verdict,
            }
            for each, verdict in zip(self.claim.expected, self.verdicts, strict=True)
        ]
        found = asdict(self.findings)
        found["pictures"] = [[caption, Path(file).name] for caption, file in self.findings.pictures]
        about = {
            "format": self.format,
            "claim": self.claim.name,
            "title": self.claim.title,
            "says": self.claim.says,
            **({"note": self.note} if self.earlier else {}),
        }
        judged = {"verdict": self.verdict, "level": self.claim.level, "expected": expected}
        return {
            **about,
            **judged,
            **found,
            "identity": self.identity,
            "seconds": self.seconds,
            "versions": self.versions,
        }


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
        kept = read(claim, experiment.out)
        kept = None if kept is None else _compared(kept, json.loads(json.dumps(identity)))
        if kept is not None and (resume or not kept.earlier):
            yield replace(kept, kept=True)
            continue
        begun = time.monotonic()
        findings = claim.measure(experiment)
        result = Result(claim, findings, identity, time.monotonic() - begun)
        write_json(experiment.out / f"{claim.name}.json", result.as_json())
        yield result


def _compared(kept: Result, identity: dict[str, Any]) -> Result | None:
    """Return what was kept, marked where other code measured it.

    None where it is of something else.
    """
    if kept.identity == identity:
        return kept
    left_out = UNCOMPARED.get(kept.format, {"code"})
    ours, theirs = (
        {name: value for name, value in each.items() if name not in left_out}
        for each in (identity, kept.identity)
    )
    return replace(kept, earlier=True) if ours == theirs else None


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
        if (file := out / f"{claim.name}.json").exists():
            found = read_json(file)
        elif (file := out / "claims.json").exists():
            every = read_json(file)
            found = next((each for each in every if each["claim"] == claim.name), None)
        else:
            found = None
        if found is None:
            return None
        numbers = {name: figure(each) for name, each in found["numbers"].items()}
        pictures = [
            (str(caption), out / "pictures" / Path(name).name)
            for caption, name in found["pictures"]
        ]
        findings = Findings(numbers, found["rows"], found["units"], pictures, found["settings"])
        wanted = {each.number for each in claim.expected}
        if found["format"] not in (FORMAT, *UNCOMPARED) or not wanted <= numbers.keys():
            return None
        made = {str(name): str(version) for name, version in found["versions"].items()}
        seconds, identity = float(found["seconds"]), dict(found["identity"])
        return Result(claim, findings, identity, seconds, made, found["format"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def figure(found: dict[str, Any]) -> Figure:
    """Return a figure from its JSON, with NaN for what could not be measured."""
    value, low, high = (
        float("nan") if found[part] is None else float(found[part])
        for part in ("value", "low", "high")
    )
    return Figure(value, low, high, int(found["n"]), str(found["note"]))
