"""What is noted while a batch climbs: scores by step, the best codes, and who stopped where."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from phosphene.synthesis.results import NOT_ABOVE
from phosphene.tensors import per_row


@dataclass
class Progress:
    """What came of `n` members in each of so many `steps`, of their best candidates."""

    n: int
    steps: int
    stopped: dict[int, int] = field(default_factory=dict)
    frames: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.curves = torch.full((self.n, self.steps), float("nan"))
        self.moved = torch.zeros(self.n, dtype=torch.bool)
        self.first: Tensor | None = None
        self.best: Tensor | None = None
        self.best_at = torch.full((self.n,), self.steps)
        self.best_codes: Tensor | None = None

    @property
    def going(self) -> list[int]:
        """Return who has not stopped."""
        return [i for i in range(self.n) if i not in self.stopped]

    def after(
        self, step: int, scores: Tensor, gradient: Tensor | None, codes: Tensor, asked: Tensor
    ) -> Tensor:
        """Return the next codes, (n, candidates, *code), which are those asked for.

        `scores` (n, candidates) are those of `codes`. A member with a number that is not finite
        stays where it was, for good: its gradient, all of its scores, or a code asked for.
        """
        fine = scores.isfinite().any(1) & asked.flatten(1).isfinite().all(1)
        if gradient is not None:
            fine &= gradient.flatten(1).isfinite().all(1)
        for i in (~fine).nonzero().flatten().tolist():
            self.stopped.setdefault(i, step)
        self._note_motion(scores, gradient)
        self._note_best(step, scores, codes)
        keep = torch.tensor([i not in self.stopped for i in range(self.n)], device=codes.device)
        return torch.where(per_row(keep, codes), asked, codes)

    def best_of(self, values: Tensor, scores: Tensor) -> Tensor:
        """Return what belongs to each member's best candidate, of values (n, candidates, …)."""
        if scores.shape[1] == 1:
            return values[:, 0]
        which = scores.nan_to_num(nan=-torch.inf).argmax(1)
        return values[torch.arange(self.n, device=which.device), which]

    def _note_motion(self, scores: Tensor, gradient: Tensor | None) -> None:
        """Note who moves: its gradient is not zero, or where there is none its scores differ."""
        self.first = scores[:, :1] if self.first is None else self.first
        signs = scores != self.first if gradient is None else gradient.flatten(1) != 0
        self.moved |= signs.any(1).cpu()

    def _note_best(self, step: int, scores: Tensor, codes: Tensor) -> None:
        score = self.best_of(scores, scores)
        codes = self.best_of(codes, scores)
        self.curves[:, step] = score.cpu()
        if self.best is None or self.best_codes is None:
            self.best = torch.full_like(score, -torch.inf)
            self.best_codes = codes
        better = score.isfinite() & (score > self.best)
        self.best = torch.where(better, score, self.best)
        self.best_codes = torch.where(per_row(better, codes), codes, self.best_codes)
        self.best_at[better.cpu()] = step

    def statuses(self, alive: list[bool], scores: Tensor, starts: Tensor) -> tuple[str, ...]:
        """Return what became of each member, by the scores of its picture and of its start."""
        return tuple(self._status(i, alive[i], scores[i], starts[i]) for i in range(self.n))

    def _status(self, i: int, alive: bool, score: Tensor, start: Tensor) -> str:
        if i in self.stopped:
            return f"stopped: not a finite number at step {self.stopped[i]}"
        if not bool(score.isfinite()):
            return "stopped: the score is not a finite number"
        if not self.steps:
            return "climbed"
        if not (alive or self.moved[i]):
            return "dead"
        return "climbed" if bool(score > start) else NOT_ABOVE
