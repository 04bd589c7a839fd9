"""An optimizer from outside, whose mistakes become one line."""

from __future__ import annotations

from torch import Tensor

from phosphene.errors import BadRequest, type_name
from phosphene.factories import users_code
from phosphene.optimizers._optimizer import Gradient, Optimizer
from phosphene.priors import Prior


class CheckedOptimizer(Optimizer):
    """Ask and tell another optimizer, and check the codes that it returns."""

    def __init__(self, optimizer: Optimizer, name: str):
        self.optimizer = optimizer
        self.name = f"optimizer {name}"
        self.uses_gradient = bool(optimizer.uses_gradient)  # type: ignore[misc]
        self.needs_statistics = bool(optimizer.needs_statistics)  # type: ignore[misc]

    def begin(self, codes: Tensor, prior: Prior, steps: int, seeds: list[int]) -> None:
        self.codes = codes
        self.candidates = 0
        with users_code(f"{self.name}: begin"):
            self.optimizer.begin(codes, prior, steps, seeds)

    def ask(self) -> Tensor:
        with users_code(f"{self.name}: ask"):
            asked = self.optimizer.ask()
        members, *code = self.codes.shape
        first = not self.candidates
        self.candidates = self.candidates or _candidates(asked)
        wanted = (members, max(1, self.candidates), *code)
        codes = self._checked("ask", asked, wanted, "(members, candidates, *code)")
        if first and not bool(codes.isfinite().all()):
            raise BadRequest(f"{self.name}: what ask returns first has numbers that are not finite")
        return codes

    def tell(self, codes: Tensor, scores: Tensor, gradient: Gradient) -> None:
        with users_code(f"{self.name}: tell"):
            self.optimizer.tell(codes, scores, gradient)

    def current(self) -> Tensor:
        with users_code(f"{self.name}: current"):
            found = self.optimizer.current()
        return self._checked("current", found, tuple(self.codes.shape), "(members, *code)")

    def _checked(self, method: str, codes: object, wanted: tuple[int, ...], axes: str) -> Tensor:
        """Return codes; `BadRequest` where they are not floats of the shape that is wanted."""
        found = tuple(codes.shape) if isinstance(codes, Tensor) else type_name(codes)
        if not isinstance(codes, Tensor) or codes.shape != wanted:
            raise BadRequest(
                f"{self.name}: {method} returns a tensor {axes}, here {wanted}; got {found}"
            )
        if not codes.is_floating_point():
            raise BadRequest(f"{self.name}: {method} returns floats; got {codes.dtype}")
        return codes.to(self.codes)


def _candidates(asked: object) -> int:
    return asked.shape[1] if isinstance(asked, Tensor) and asked.ndim > 1 else 0
