"""Runs experiments one after the other, keeps what each found, and does none of them twice."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phosphene import weights
from phosphene.claims.claim import Claim, Findings, Verdict
from phosphene.claims.experiment import Experiment
from phosphene.files import write_json
from phosphene.runs import versions
from phosphene.statistics import Figure

FORMAT = 1


@dataclass(frozen=True)
class Result:
    """A claim with what was found of it: the content of OUT/NAME.json."""

    claim: Claim
    findings: Findings
    identity: dict[str, Any]
    seconds: float

    @property
    def verdicts(self) -> list[Verdict]:
        """One for each expectation."""
        return self.claim.verdicts(self.findings.numbers)

    @property
    def verdict(self) -> Verdict:
        """The claim's own."""
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
            "format": FORMAT,
            "claim": self.claim.name,
            "title": self.claim.title,
            "says": self.claim.says,
        }
        judged = {"verdict": self.verdict, "level": self.claim.level, "expected": expected}
        return {
            **about,
            **judged,
            **found,
            "identity": self.identity,
            "seconds": self.seconds,
            "versions": versions(),
        }


def run(claims: Sequence[Claim], experiment: Experiment) -> Iterator[Result]:
    """Measure each claim, or read what the same code found with the same networks, data, seed and number of units."""
    for claim in claims:
        needed = {name: weights.locate(name)[1] for name in claim.needs}
        identity = {
            **experiment.identity,
            "weights": needed,
            "data": experiment.fingerprints(claim.data),
            "code": _code(),
        }
        file = experiment.out / f"{claim.name}.json"
        kept = read(claim, file) if file.exists() else None
        if kept is not None and kept.identity == json.loads(json.dumps(identity)):
            yield kept
            continue
        begun = time.monotonic()
        findings = claim.measure(experiment)
        result = Result(claim, findings, identity, time.monotonic() - begun)
        write_json(file, result.as_json())
        yield result


def _code() -> str:
    """One hash of what measures: the experiments, and the modules at the top of the package that they work with."""
    package = Path(__file__).parent.parent
    files = sorted([*package.glob("*.py"), *(package / "claims").glob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def read(claim: Claim, file: Path) -> Result | None:
    """What a file of an earlier run says; None where it is of another form."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        numbers = {name: figure(each) for name, each in found["numbers"].items()}
        pictures = [
            (str(caption), file.parent / "pictures" / Path(name).name)
            for caption, name in found["pictures"]
        ]
        findings = Findings(numbers, found["rows"], found["units"], pictures, found["settings"])
        if (
            found["format"] != FORMAT
            or not {each.number for each in claim.expected} <= numbers.keys()
        ):
            return None
        return Result(claim, findings, found["identity"], float(found["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def figure(found: dict[str, Any]) -> Figure:
    """A figure as JSON has it; what could not be measured is NaN again."""
    value, low, high = (
        float("nan") if found[part] is None else float(found[part])
        for part in ("value", "low", "high")
    )
    return Figure(value, low, high, int(found["n"]), str(found["note"]))
