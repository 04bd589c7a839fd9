"""The first stage of a generator whose code is principal components: to find their axes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from phosphene.kept import Content, kept
from phosphene.networks.components import Components
from phosphene.training.inversion import Inversion
from phosphene.training.optimization import mixed_precision, placed, seeded
from phosphene.training.recipes import recipe_hash

EXACT = 4096
"""Units up to which principal axes are found exactly."""


def with_components(inversion: Inversion, trained: Components | None = None) -> Inversion:
    """Return the inversion with the components of its layer, where its code is such.

    They are those of a `trained` generator, or else found in views of photographs, once, and kept
    beside the run with the codes of those views.
    """
    if "code" not in inversion.recipe:
        return inversion
    if trained is not None:
        return replace(inversion, components=trained)

    def make() -> Content:
        values = torch.cat(list(_values(inversion)))
        mean = values.mean(0)
        values -= mean
        variances, axes = principal(values, inversion.recipe["code"]["components"])
        explained = variances.sum() / values.square().sum(1).mean()
        return {
            "axes": axes.T.contiguous(),
            "mean": mean,
            "codes": (values @ axes).half(),
            "explained": explained.item(),
        }

    identity = _identity(inversion)
    runtime = inversion.runtime
    file = runtime.folder / f"components-{identity[:16]}.safetensors"
    found = kept(file, {"components": identity}, make, runtime.processes)
    components = Components(found["axes"], found["mean"])
    return replace(inversion, components=components, known=found["codes"])


def _identity(inversion: Inversion) -> str:
    """Return one hash of what the axes depend on."""
    recipe, own = inversion.recipe, inversion.architecture
    parts = {name: recipe[name] for name in ("seed", "code_layer", "code", "views")}
    parts |= {name: own[name] for name in ("size", "view_size")}
    parts["encoder"] = inversion.encoder.identity
    return recipe_hash(parts, inversion.photographs.fingerprint)


def _values(inversion: Inversion) -> Iterator[Tensor]:
    """Yield the layer's values (batch, units) for some views, on the CPU."""
    device, encoder = inversion.runtime.device, inversion.encoder
    layer = inversion.recipe["code_layer"]
    placed(encoder.network, device)
    with encoder.reading([layer]) as read, torch.no_grad():
        for x in shown(inversion, inversion.recipe["code"]["views"]):
            with mixed_precision(device):
                values = read(inversion.prepared(x))[layer]
            yield values.flatten(1).float().cpu()


def shown(inversion: Inversion, number: int, batch: int = 128) -> Iterator[Tensor]:
    """Yield this number of views of photographs, a batch at a time."""
    device, seed = inversion.runtime.device, inversion.recipe["seed"]
    photographs = inversion.photographs
    n = len(photographs)
    order = torch.randperm(n, generator=seeded(seed, 8)).repeat(1 + number // n)
    for at, chosen in enumerate(order[:number].split(batch)):
        pictures = torch.from_numpy(photographs.images[chosen.numpy()]).to(device)
        yield inversion.views(pictures, seeded(seed, 9, at))


def principal(centred: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """Return variances (axes,) and directions (units, axes) of principal axes of (n, units).

    Of more than `EXACT` units they are found by random projections (Halko et al. 2011).
    """
    if centred.shape[1] <= EXACT:
        covariance = centred.T @ centred / (len(centred) - 1)
        values, vectors = torch.linalg.eigh(covariance.double())
        return values.flip(0).float().clamp(min=0)[:axes].clone(), vectors.flip(1).float()[:, :axes]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, singular, vectors = torch.pca_lowrank(
            centred, q=min(axes, len(centred) - 1), center=False, niter=4
        )
    return singular.square() / (len(centred) - 1), vectors
