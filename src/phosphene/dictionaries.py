"""Dictionaries of features on a layer's channels: sparse autoencoders, and files of directions.

A file of a sparse autoencoder is safetensors in one of these layouts. Its configuration lies in the
file's own metadata, or as JSON beside it (`cfg.json`, `config.json`, or the file's name with
`.json`).

    SAELens, ViT-Prisma   W_enc (inputs, features), b_enc, W_dec, b_dec; threshold; b_gate …
    saev                  the same tensors; the input is not centred by b_dec
    Overcomplete          encoder.final_block.0.weight (features, inputs), …, dictionary._weights
    others                encoder.weight (features, inputs), encoder.bias, decoder.weight, …

A file of directions is `.npy` (vectors in rows), `.npz` or safetensors (one vector, or rows, under
each name). The value of a direction is the product with its unit vector.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import BadFile, near
from phosphene.files import really, really_is

MAX_BYTES = 4 << 30
"""Bytes; a bigger file is refused before it is opened."""
MAX_CONFIG = 1 << 20
"""Bytes of a configuration."""
MAX_FEATURES = 1 << 20

ACTIVATIONS = ("linear", "relu", "jumprelu", "topk", "gated")
NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale")


@dataclass(frozen=True)
class Encoder:
    """What makes features of a layer's values x, (…, inputs), in the order of its fields.

    x is normalized, `centre` (inputs,) is taken off, the product with `weight` (inputs, features)
    is taken and `bias` (features,) added, and the activation follows. `threshold` (features,) is
    that of `jumprelu`. `k` features are kept by `topk`, those below 0 only where `signed`. `gate`
    and `scale` (features,) are those of `gated`: a feature is `relu(scale · xW + bias)` where
    `xW + gate` is above 0. `vectors` (features, inputs) are directions as their file has them.
    """

    weight: Tensor
    bias: Tensor
    centre: Tensor
    normalization: str = "none"
    activation: str = "relu"
    threshold: Tensor | None = None
    k: int = 0
    signed: bool = False
    gate: Tensor | None = None
    scale: Tensor | None = None
    vectors: Tensor | None = None


class Dictionary(nn.Module):
    """Compute the features of a dictionary at every position of a layer.

    It reads (batch, inputs, …) and gives (batch, channels, …). `names` are those of its features,
    where they have any. `sha256` is a hash of the file and of its configuration.
    """

    weight: Tensor
    bias: Tensor
    centre: Tensor
    threshold: Tensor | None
    gate: Tensor | None
    scale: Tensor | None

    def __init__(self, encoder: Encoder, names: tuple[str, ...] = (), sha256: str = ""):
        super().__init__()
        self.names = names
        self.sha256 = sha256
        self.normalization = encoder.normalization
        self.activation = encoder.activation
        self.k = encoder.k
        self.signed = encoder.signed
        self.vectors = encoder.weight.T if encoder.vectors is None else encoder.vectors
        self.inputs, self.channels = encoder.weight.shape
        for name in ("weight", "bias", "centre", "threshold", "gate", "scale"):
            self.register_buffer(name, getattr(encoder, name))

    def forward(self, values: Tensor) -> Tensor:
        product, before = self._before(values)
        return self._activated(product, before).movedim(-1, 1)

    def opened(self, values: Tensor) -> Tensor:
        """Return the features from before their activation, which is flat where it shuts one."""
        return self._before(values)[1].movedim(-1, 1)

    def _before(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the product with the weights, and the features ahead of the activation."""
        x = _normalized(values.movedim(1, -1).to(self.weight.dtype), self.normalization)
        product = (x - self.centre) @ self.weight
        scaled = product if self.scale is None else product * self.scale
        return product, scaled + self.bias

    def _activated(self, product: Tensor, before: Tensor) -> Tensor:
        if self.activation == "linear":
            return before
        if self.activation == "topk":
            kept = before.topk(self.k, dim=-1)
            values = kept.values if self.signed else kept.values.relu()
            return torch.zeros_like(before).scatter(-1, kept.indices, values)
        if self.threshold is not None:  # a product, so that what is no number stays none
            return before.relu() * (before > self.threshold)
        if self.gate is not None:
            return before.relu() * (product + self.gate > 0)
        return before.relu()


def _normalized(x: Tensor, how: str) -> Tensor:
    """Return x (…, inputs) normalized at each position, as SAELens does."""
    if how == "layer_norm":
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.std(-1, keepdim=True) + 1e-5)
    if how == "constant_norm_rescale":
        return x * (x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True).clamp(min=1e-12))
    return x


def read_dictionary(path: Path) -> Dictionary:
    """Read a file of features or directions; `BadFile` where it is none, or is damaged."""
    tensors, metadata, raw = _read(path)
    config, told = _config(path, metadata)
    for name, value in tensors.items():
        wrong = _wrong(value)
        if wrong:
            raise BadFile(f"{path}: {name or 'the array'} holds {wrong}")
    try:
        encoder, names = _encoder(tensors, config)
        checked = _checked(encoder)
    except (_Unfit, KeyError, TypeError, ValueError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise BadFile(f"{path} is no dictionary of features: {why}") from None
    sha256 = hashlib.sha256(raw + told.encode()).hexdigest()
    return Dictionary(checked, names, sha256)


def _wrong(value: Tensor) -> str:
    """Return what is wrong with the numbers of a file, "" where nothing is."""
    if not value.is_floating_point():
        return f"{value.dtype}, and real numbers are read, such as float32"
    return "" if bool(value.isfinite().all()) else "numbers that are not finite"


class _Unfit(Exception):
    """Tensors or a configuration that make no dictionary, and why."""


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str], bytes]:
    """Return a file's tensors by name, its metadata, and the hash of its bytes."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise BadFile(f"{path} has {size:,} bytes; more than {MAX_BYTES:,} is not read")
        raw = path.read_bytes()
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(raw).digest()
    if path.suffix.lower() in (".npy", ".npz"):
        return _arrays(path), {}, digest
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(raw)
        length = int.from_bytes(raw[:8], "little")
        metadata = json.loads(raw[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        kind = f"it is {really(raw)}" if really(raw) else str(error)
        raise BadFile(
            f"{path} is no dictionary: {kind}; a .safetensors, .npy or .npz file is read"
        ) from None
    return tensors, metadata, digest


def _arrays(path: Path) -> dict[str, Tensor]:
    """Return the arrays of a numpy file by name, "" where it is one array."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {name: loaded[name] for name in loaded.files} if _is_npz(loaded) else {"": loaded}
        whole = {name: each.dtype.kind in "iu" for name, each in arrays.items()}
        arrays = {name: each * 1.0 if whole[name] else each for name, each in arrays.items()}
        return {name: torch.from_numpy(np.atleast_1d(each)) for name, each in arrays.items()}
    except Exception as error:  # numpy has no common error of its own
        raise BadFile(f"{path} is not a numpy file: {really_is(path) or error}") from None


def _is_npz(loaded: Any) -> bool:
    return hasattr(loaded, "files")


def _config(path: Path, metadata: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return the configuration in a file's metadata or beside it, and its text."""
    texts = [metadata[key] for key in ("cfg", "config", "sae_config") if key in metadata]
    names = ("cfg.json", "config.json", f"{path.name}.json", f"{path.stem}.json")
    if not texts and "activation" in metadata:  # each setting under a key of its own
        return {key: _plain(value) for key, value in metadata.items()}, ""
    for file in [] if texts else [path.with_name(name) for name in names]:
        if file.is_file() and file.stat().st_size <= MAX_CONFIG:
            texts.append(file.read_text(encoding="utf-8", errors="replace"))
            break
    try:
        found = json.loads(texts[0]) if texts else {}
    except ValueError as error:
        raise BadFile(f"{path}: its configuration is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BadFile(f"{path}: its configuration is {type(found).__name__}, not an object")
    inner = found.get("cfg")
    return {**found, **inner} if isinstance(inner, dict) else found, "".join(texts)


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _encoder(
    given: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[Encoder, tuple[str, ...]]:
    """Return the encoder that tensors of any known layout are, and the names of its features."""
    tensors = {name: value.float() for name, value in given.items()}
    if "W_enc" in tensors:
        encoder = _of_saelens(tensors, config)
    elif any(name.startswith("encoder.final_block.") for name in tensors):
        encoder = _of_overcomplete(tensors, config)
    elif "encoder.weight" in tensors:
        encoder = _of_linear_layers(tensors, config)
    else:
        return _of_directions({name: value.double() for name, value in given.items()})
    names = config.get("feature_names", ())
    if names and (len(names) != encoder.weight.shape[1] or not all(map(_is_name, names))):
        raise _Unfit(f"feature_names are {encoder.weight.shape[1]} names of one line")
    return encoder, tuple(names)


def _of_saelens(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Encoder:
    """Return the encoder of SAELens, ViT-Prisma or saev."""
    weight = tensors["W_enc"]
    inputs, features = _matrix("W_enc", weight)
    of_saev = "d_vit" in config or isinstance(config.get("activation"), dict)
    centred = config.get("apply_b_dec_to_input", not of_saev)
    gate = tensors.get("b_gate")
    bias = tensors.get("b_enc" if gate is None else "b_mag", torch.zeros(features))
    centre = tensors.get("b_dec", torch.zeros(inputs)) if centred else torch.zeros(inputs)
    if config.get("rescale_acts_by_decoder_norm"):
        norms = tensors["W_dec"].norm(dim=-1)
        weight = weight * norms
        bias = bias * norms
    encoder = Encoder(weight, bias, centre, signed=of_saev)
    if gate is not None:
        return replace(
            encoder, activation="gated", gate=gate, scale=tensors["r_mag"].exp(), **_how(config)
        )
    return _activated(encoder, config, tensors.get("threshold"))


def _of_overcomplete(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Encoder:
    """Return the encoder of Overcomplete with one block; its batch norm becomes a part of it."""
    if any(name.startswith("encoder.mlp_blocks.") for name in tensors):
        raise _Unfit("its encoder has several blocks; a linear one is read")
    start = "encoder.final_block."
    weight = tensors[f"{start}0.weight"].T
    inputs, features = _matrix("its encoder", weight)
    bias = tensors.get(f"{start}0.bias", torch.zeros(features))
    if f"{start}1.running_mean" in tensors:
        mean, variance, gain, shift = (
            tensors[f"{start}1.{part}"]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        gain = gain / (variance + 1e-5).sqrt()
        weight = weight * gain
        bias = (bias - mean) * gain + shift
    thresholds = tensors.get("thresholds")
    encoder = Encoder(weight, bias, torch.zeros(inputs))
    return _activated(encoder, config, None if thresholds is None else thresholds.exp())


def _of_linear_layers(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Encoder:
    """Return the encoder of two linear layers; the decoder's bias centres what it reads."""
    weight = tensors["encoder.weight"].T
    inputs, features = _matrix("encoder.weight", weight)
    centred = config.get("apply_b_dec_to_input", True)
    shift = tensors.get("decoder.bias", tensors.get("b_dec", torch.zeros(inputs)))
    bias = tensors.get("encoder.bias", torch.zeros(features))
    encoder = Encoder(weight, bias, shift if centred else torch.zeros(inputs))
    return _activated(encoder, config, tensors.get("threshold"))


def _of_directions(tensors: Mapping[str, Tensor]) -> tuple[Encoder, tuple[str, ...]]:
    """Return the encoder that takes the product with each unit vector, and their names."""
    rows: list[Tensor] = []
    names: list[str] = []
    for name, value in sorted(tensors.items()):
        vectors = value[None] if value.ndim == 1 else value
        _matrix(name or "the array", vectors)
        rows.extend(vectors)
        names.extend([name] if len(vectors) == 1 else [f"{name}{i}" for i in range(len(vectors))])
    if not rows or len({len(row) for row in rows}) > 1:
        known = ", ".join(tensors) or "nothing"
        raise _Unfit(f"it holds {known}; neither an encoder nor vectors of one length")
    matrix = torch.stack(rows)
    if not bool(matrix.any(1).all()):
        raise _Unfit("a direction needs numbers that are not all zero")
    matrix = _of_measurable_length(matrix)
    weight = (matrix / matrix.norm(dim=1, keepdim=True)).T.float().contiguous()
    named = all(map(_is_name, names)) and len({*names}) == len(names) and "" not in tensors
    zeros = torch.zeros(len(rows)), torch.zeros(weight.shape[0])
    encoder = Encoder(weight, *zeros, activation="linear", vectors=matrix)
    return encoder, tuple(names) if named else ()


def _of_measurable_length(matrix: Tensor) -> Tensor:
    """Return the rows (directions, inputs); where squares of a row overflow or vanish, scaled to 1.

    All others keep their bits.
    """
    largest = matrix.double().abs().amax(1, keepdim=True)
    norm = matrix.norm(dim=1, keepdim=True)
    fits = (largest > 1e-12) & (largest < 1e12) & norm.isfinite()
    return torch.where(fits, matrix, (matrix.double() / largest).to(matrix.dtype))


def _is_name(text: Any) -> bool:
    """Return whether a text can be typed as a channel: a word that is no number."""
    return isinstance(text, str) and re.fullmatch(r"[^\W\d][\w.-]{0,99}", text) is not None


def _matrix(name: str, value: Tensor) -> tuple[int, int]:
    if value.ndim != 2 or not value.numel() or value.shape[1] > MAX_FEATURES:
        raise _Unfit(f"{name} has the shape {tuple(value.shape)}, not (inputs, features)")
    return value.shape[0], value.shape[1]


def _how(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a configuration normalizes what it reads."""
    how = config.get("normalize_activations") or "none"
    if how == "expected_average_only_in":
        raise _Unfit(
            "its inputs were scaled by a factor that it does not hold; call "
            "sae.fold_activation_norm_scaling_factor(factor) and save it again"
        )
    if how not in NORMALIZATIONS:
        raise _Unfit(f"normalize_activations {how!r} is none of {', '.join(NORMALIZATIONS)}")
    return {"normalization": how}


def _activated(encoder: Encoder, config: Mapping[str, Any], threshold: Tensor | None) -> Encoder:
    """Return an encoder with the activation that a configuration names, or the tensors imply."""
    limit = config.get("threshold")
    if threshold is None and isinstance(limit, (int, float)):
        threshold = torch.tensor(float(limit))
    kind, k = _activation(config, threshold)
    if kind not in ACTIVATIONS or kind == "gated":
        raise _Unfit(f"its activation {kind!r} is not known; near: {near(kind, ACTIVATIONS)}")
    if kind == "jumprelu" and threshold is None:
        raise _Unfit("its activation is jumprelu, and there is no threshold")
    if threshold is not None:
        threshold = threshold.expand(encoder.weight.shape[1]).contiguous()
    if kind == "topk" and not (isinstance(k, int) and 1 <= k <= encoder.weight.shape[1]):
        raise _Unfit(f"its activation is topk of k features; got k = {k!r}")
    k = k if kind == "topk" else 0
    return replace(encoder, activation=kind, k=k, threshold=threshold, **_how(config))


def _activation(config: Mapping[str, Any], threshold: Tensor | None) -> tuple[str, Any]:
    """Return the activation and the number of features that it keeps, as far as it is told."""
    given = config.get("activation", config.get("activation_fn_str", config.get("activation_fn")))
    options = config.get("activation_fn_kwargs") or {}
    if isinstance(given, dict):  # as saev writes it
        options = given.get("params") or {}
        given = given.get("cls")
    kind = str(given or "relu").lower().replace("_", "").replace("-", "")
    architecture = str(config.get("architecture", "")).lower().replace("_", "")
    if architecture in ("topk", "jumprelu", "batchtopk"):
        kind = architecture
    k = config.get("k", config.get("top_k", options.get("k", options.get("top_k"))))
    if threshold is not None:  # that of BatchTopK in use is a threshold
        return "jumprelu", k
    return ("topk" if kind == "batchtopk" else kind), k


def _checked(encoder: Encoder) -> Encoder:
    """Return an encoder whose parts fit each other."""
    inputs, features = encoder.weight.shape
    for name, value in vars(encoder).items():
        matrices = {"weight": (inputs, features), "vectors": (features, inputs)}
        wanted = {**matrices, "centre": (inputs,)}.get(name, (features,))
        if isinstance(value, Tensor) and tuple(value.shape) != wanted:
            raise _Unfit(f"its {name} has the shape {tuple(value.shape)}, expected {wanted}")
    return encoder
