"""Weights files: one safetensors file is one whole network, and a damaged one is refused.

The tensors lie beside a JSON card in the file's own metadata (kind, architecture, preprocessing or
code layer, class names, data and licence, recipe, measured figures) and a digest over card and
tensors. The bundled files are checked against `zoo/manifest.json` too. Reading never runs code from
a file.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import BadFile, BadRequest
from phosphene.files import atomic_path, really, without_nan
from phosphene.kept import digest_of
from phosphene.weights.zoo import advice, listed_figures, locate

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 3
MAX_BYTES = 4 << 30
"""Bytes; a bigger file is refused before it is opened."""
MAX_CARD = 64 << 20
"""Letters of a card's JSON; safetensors reads no header of more than 100 MB."""
RENAMED = {"seen": "view_size"}
"""What version 0.1.0 called arguments of an architecture, and their names now."""
_NO_PICKLES = (
    "; for a network of your own write a factory, python:MODULE:FACTORY, or export it with "
    "torch.export.save to a file NAME.pt2"
)


@dataclass(frozen=True)
class Weights:
    """A checked file in memory: tensors by name, the card, and the sha256 of the file's bytes."""

    tensors: dict[str, Tensor]
    card: dict[str, Any]
    sha256: str
    path: Path

    @property
    def name(self) -> str:
        return str(self.card["name"])

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors under `prefix.`, their names without it, in float32."""
        from phosphene.weights.quantization import STEP

        start = prefix + "."
        return {
            name.removeprefix(start): self._whole(name)
            for name in self.tensors
            if name.startswith(start) and not name.endswith(STEP)
        }

    def _whole(self, name: str) -> Tensor:
        from phosphene.weights.quantization import STEP, whole

        try:
            return whole(self.tensors[name], self.tensors.get(name + STEP))
        except ValueError as error:
            raise BadFile(f"{self.path} is damaged: {error} of {name} do not fit it") from None


def write(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any],
    *,
    bits: int = 16,
    filters: int = 0,
) -> str:
    """Write a weights file in half precision (vectors stay float32) and return its sha256.

    With 8 `bits` a number, matrices and filters that are called weight, and axes, have 255 equal
    steps for each output; with 4, they have 16 for each 32 inputs of one, where there are so many.
    The steps' sizes lie beside them. Other statistics have neither: a spread may be small, and is
    divided by. `filters` are the bits of filters, if others. Numbers that are too large for half
    precision stay float32. A card or a tensor that `read` would refuse is not written: `BadFile`.
    In the card, null stands for NaN.
    """
    from safetensors.torch import save

    from phosphene.weights.quantization import stored

    path = Path(path)
    text = json.dumps(without_nan({**card, "format": FORMAT}), sort_keys=True)
    _card(text, path)
    _check_finite(tensors, path)
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        kept |= stored(name, tensor.detach().cpu(), bits, filters)
    _check_finite(kept, path)
    raw = _ordered(save(kept, {"phosphene": text, "digest": digest_of(kept, text)}))
    with atomic_path(path) as scratch:
        scratch.write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BadFile(f"{path} is not written: {name} holds numbers that are not finite")


def _ordered(raw: bytes) -> bytes:
    """Return the same file with its metadata in alphabetical order.

    The library's own order is another in every process.
    """
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    metadata = {"__metadata__": dict(sorted(header.pop("__metadata__").items()))}
    text = json.dumps({**metadata, **header}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def read(name: str | Path, kind: str | None = None, others: Iterable[str] = ()) -> Weights:
    """Read a weights file by its bundled name or by path.

    Everything is checked before it is believed.
    """
    path, expected = locate(name, others)
    raw = _bytes(path)
    sha256 = hashlib.sha256(raw).hexdigest()
    if expected is not None and sha256 != expected:
        found = f"it is {kind}" if (kind := really(raw)) else f"sha256 is {sha256[:16]}…"
        raise BadFile(
            f"{path} is damaged: {found}, the manifest says {expected[:16]}…; {advice(path)}"
        )
    tensors, text, digest = _parse(raw, path)
    if digest != digest_of(tensors, text):
        raise BadFile(f"{path} is damaged: its contents do not match its own digest")
    card = _card(text, path)
    if kind is not None and card["kind"] != kind:
        raise BadFile(f"{path} is a {card['kind']}, not a {kind}")
    return Weights(tensors, card, sha256, path)


def figures(file: Weights) -> list[dict[str, Any]]:
    """Return what was measured of a bundled file after it was made, one entry for each judge.

    The entries are as `phosphene evaluate` writes them.
    """
    listed = listed_figures().get(file.name, [])
    return [found for found in listed if found["sha256"] == file.sha256]


def fill(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> nn.Module:
    """Put tensors into a network built on the meta device, and return it.

    So no size is believed before it is checked.
    """
    own = network.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own or own[name].shape != tensors[name].shape:
            shape = list(tensors[name].shape) if name in tensors else "missing"
            wanted = list(own[name].shape) if name in own else "no such tensor"
            raise BadFile(
                f"{source} does not fit its architecture: {name} is {shape}, expected {wanted}"
            )
        same = own[name].is_floating_point() == tensors[name].is_floating_point()
        if not same or not tensors[name].isfinite().all():
            raise BadFile(
                f"{source} is damaged: {name} holds {tensors[name].dtype} "
                "or numbers that are not finite"
            )
    network.load_state_dict(tensors, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()


def rehearse(card: Mapping[str, Any], network: nn.Module, source: str) -> dict[str, Any]:
    """Return a card as `read` would give it once it is written.

    `BadRequest` where `read` would refuse it. A training run calls this before its first step.
    `network` is what it will write.
    """
    text = json.dumps(without_nan({**card, "format": FORMAT}), sort_keys=True)
    if (size := 2 * sum(value.numel() for value in network.state_dict().values())) > MAX_BYTES:
        raise BadRequest(
            f"{source}: a file of {size:,} bytes; more than {MAX_BYTES:,} would not be read"
        )
    return _card(text, Path(source))


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadFile(f"{path} has {size:,} bytes; more than {MAX_BYTES:,} is not read")
        return path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}") from None


def _parse(raw: bytes, path: Path) -> tuple[dict[str, Tensor], str, str]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(raw)
        length = int.from_bytes(raw[:8], "little")
        metadata = json.loads(raw[8 : 8 + length]).get("__metadata__", {})
        return tensors, metadata["phosphene"], metadata["digest"]
    except (SafetensorError, ValueError, AttributeError, TypeError) as error:
        if kind := really(raw):
            way = _NO_PICKLES if "pickle" in kind else ""
            raise BadFile(f"{path} is not a safetensors file; it is {kind}{way}") from None
        raise BadFile(f"{path} is not a safetensors file, or a truncated one: {error}") from None
    except KeyError:
        raise BadFile(
            f"{path} is a safetensors file without phosphene's card; `phosphene train` writes one"
        ) from None


def _card(text: str, path: Path) -> dict[str, Any]:
    """Return the card that a text holds; `BadFile` where it is not of the form that a card has."""
    if len(text) > MAX_CARD:
        raise BadFile(f"{path}: its card has {len(text):,} letters; at most {MAX_CARD:,} are read")
    try:
        card = json.loads(text)
        leaves = _leaves(card.get("architecture") if isinstance(card, dict) else [])
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{path}: its card is not JSON: {error}") from None
    needed = {"name": str, "kind": str, "architecture": dict, "format": int}
    if not isinstance(card, dict) or any(
        not isinstance(card.get(key), type_) for key, type_ in needed.items()
    ):
        raise BadFile(f"{path}: its card lacks one of {', '.join(needed)}")
    if card["format"] > FORMAT:
        raise BadFile(
            f"{path} has format {card['format']}, this version reads up to {FORMAT}; "
            "update phosphene"
        )
    card["architecture"] = {RENAMED.get(k, k): v for k, v in card["architecture"].items()}
    if any(not 0 <= value <= 65536 for value in leaves if isinstance(value, (int, float))):
        raise BadFile(f"{path}: its architecture has a number outside 0 … 65536")
    return card


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]
