"""A generator's beginning taken from another: its decoder, and a closed-form map to its latents of the same views."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.datasets import Photographs
from phosphene.encoders import encoder_of
from phosphene.errors import BadRequest
from phosphene.kept import Content, kept
from phosphene.networks import build
from phosphene.networks.generator import ImageGenerator, MapToLatent, TwoStageGenerator
from phosphene.parameterizations import Generated, load_generated
from phosphene.runtime import Runtime
from phosphene.subjects import Subject
from phosphene.tensors import center_crop
from phosphene.training.latents import Views, regress, whiten, whiten_code
from phosphene.training.run import Recipe, placed, seeded
from phosphene.training.stages import (
    DECODER,
    drawn_views,
    kept_codes,
    mixed_precision,
    stage_identity,
)

SHARED = (*DECODER, "size")
"""What of the architecture the two generators must have in common."""
EXACT = 4096
"""Units of a code up to which its principal axes are found exactly."""


def initialized(
    recipe: Recipe,
    encoder: Subject,
    photographs: Photographs,
    runtime: Runtime,
) -> tuple[ImageGenerator, dict[str, Tensor], tuple[str, ...]]:
    """A generator that has never seen an image, the statistics of its code, and the sha256 of its teacher, if any.

    The teacher, `[begin] generator`, is a trained two-stage generator of any code. It draws `[begin] views` views of
    photographs from its own code; its decoder becomes this generator's, and the latents become the goal of a ridge
    regression on this generator's codes. Without one, only the codes are looked at. Computed once and kept beside the
    run.
    """
    teacher = load_generated(name) if (name := recipe["begin"].get("generator", "")) else None
    _check(recipe, teacher)
    begun = (str(teacher.card["sha256"]),) if teacher else ()
    torch.manual_seed(recipe["seed"] + 1)
    generator = cast("ImageGenerator", build(dict(recipe["architecture"])))
    alone: Recipe = {part: value for part, value in recipe.items() if part != "image"} | {
        "image": {}
    }
    identity = stage_identity(alone, encoder, photographs, "image", begun)

    def make() -> Content:
        if teacher is None:
            codes = torch.cat(
                [codes for codes, _ in _shown(recipe, encoder, photographs, runtime.device)]
            )
            whiten_code(generator, codes)
        else:
            views = _drawn(recipe, encoder, teacher, photographs, runtime.device)
            codes = views.codes
            follower = cast("TwoStageGenerator", generator)
            follower.decoder.load_state_dict(teacher.generator.decoder.state_dict())  # type: ignore[union-attr]
            whiten(follower, views)
            initialize_map(follower, views)
        tensors = {f"network.{name}": value for name, value in generator.state_dict().items()}
        return tensors | {f"code.{name}": value for name, value in code_statistics(codes).items()}

    file = runtime.folder / f"begin-{identity[:16]}.safetensors"
    tensors = kept(file, {"beginning": identity}, make, runtime.processes)
    generator.load_state_dict(
        {n.partition(".")[2]: t for n, t in tensors.items() if n.startswith("network.")}
    )
    return (
        generator,
        {n.partition(".")[2]: t for n, t in tensors.items() if n.startswith("code.")},
        begun,
    )


def _check(recipe: Recipe, teacher: Generated | None) -> None:
    """`BadRequest` where the recipe's generator cannot begin like that."""
    if not isinstance(views := recipe["begin"]["views"], int) or views < 2:
        raise BadRequest(f"[begin] views is a number of views, at least 2; got {views!r}")
    own = recipe["architecture"]
    if teacher is None:
        if own["name"] == "two-stage":
            raise BadRequest(
                "a two-stage generator begins from another, [begin] generator, or has all four "
                "stages"
            )
        return
    theirs = teacher.card.get("architecture", {})
    if {own["name"], theirs.get("name")} != {"two-stage"} or any(
        own.get(part) != theirs.get(part) for part in SHARED
    ):
        wanted = ", ".join(f"{part} {own.get(part)}" for part in ("name", *SHARED))
        raise BadRequest(
            f"[begin] generator is {recipe['begin']['generator']!r}, which is none with {wanted}"
        )


def _shown(
    recipe: Recipe, encoder: Subject, photographs: Photographs, device: str, batch: int = 128
) -> Iterator[tuple[Tensor, Tensor]]:
    """The encoder's codes of some views, in half precision, and the views, a batch at a time."""
    shape, layer = recipe["architecture"]["code"], recipe["code_layer"]
    placed(encoder.network, device)
    with encoder.reading([layer]) as read, torch.no_grad():
        for x in _some_views(recipe, photographs, batch, device):
            with mixed_precision(device):
                codes = read(encoder.prepare(center_crop(x, recipe["architecture"]["seen"])))[layer]
            codes = codes.reshape(len(x), *([shape] if isinstance(shape, int) else shape))
            yield kept_codes(codes, encoder, layer), x


def _drawn(
    recipe: Recipe, encoder: Subject, teacher: Generated, photographs: Photographs, device: str
) -> Views:
    """What the encoder says of some views, and the latents from which the teacher draws the same."""
    own = encoder_of(teacher, trusted=encoder.name)
    placed(own.network, device)
    generator = placed(cast("TwoStageGenerator", teacher.generator), device)
    codes, latents = [], []
    with own.reading([teacher.layer]) as read, torch.no_grad():
        for mine, x in _shown(recipe, encoder, photographs, device):
            with mixed_precision(device):
                theirs = read(own.prepare(center_crop(x, teacher.seen)))[teacher.layer]
                latents.append(
                    generator.latents(theirs.float().reshape(len(x), *generator.code_shape))
                    .float()
                    .cpu()
                )
            codes.append(mine)
    goal = torch.cat(latents)
    mean, std = goal.mean((0, 2, 3), keepdim=True), goal.std((0, 2, 3), keepdim=True)
    return Views(torch.cat(codes), ((goal - mean) / std).half(), mean, std)


def _some_views(
    recipe: Recipe, photographs: Photographs, batch: int, device: str
) -> Iterator[Tensor]:
    number = recipe["begin"]["views"]
    order = torch.randperm(len(photographs), generator=seeded(recipe["seed"], 8)).repeat(
        1 + number // len(photographs)
    )
    for at, chosen in enumerate(order[:number].split(batch)):
        pictures = torch.from_numpy(photographs.images[chosen.numpy()]).to(device)
        yield drawn_views(pictures, recipe, seeded(recipe["seed"], 9, at))


def initialize_map(generator: TwoStageGenerator, views: Views) -> None:
    """Set the linear part of the generator's map to the ridge regression of latents on whitened codes."""
    if isinstance(generator.map, MapToLatent):
        _regress_maps(generator, generator.map, views)
    else:
        regress(generator, views)


@torch.no_grad()
def _regress_maps(
    generator: TwoStageGenerator,
    to_latent: MapToLatent,
    views: Views,
    most: int = 2000,
    ridge: float = 1e-2,
) -> None:
    """The same for codes that are maps: of each position's latents on the code's 3 × 3 neighbours, at all positions."""
    mean, std, linear = generator.code_mean.cpu(), generator.code_std.cpu(), to_latent.linear
    size = linear.in_channels * 9 + 1
    gram, goal = torch.zeros(size, size), torch.zeros(size, linear.out_channels)
    for codes, latents in zip(
        views.codes[:most].split(20), views.latents[:most].split(20), strict=True
    ):
        patches = F.unfold(to_latent.resized((codes.float() - mean) / std), 3, padding=1)
        x = F.pad(patches.transpose(1, 2).flatten(0, 1), (0, 1), value=1.0)
        gram += x.T @ x
        goal += x.T @ latents.float().flatten(2).transpose(1, 2).flatten(0, 1)
    weight = torch.linalg.solve(gram + ridge * gram.diagonal().mean() * torch.eye(size), goal).T
    linear.weight.copy_(weight[:, :-1].reshape(linear.weight.shape))
    cast("nn.Parameter", linear.bias).copy_(weight[:, -1])


def code_statistics(codes: Tensor, axes: int = 64) -> dict[str, Tensor]:
    """Return what a prior needs to know of codes (n, *code), as `CodeStatistics` names it.

    `axes` (axes, units) are orthonormal, `variances` (axes,) their variances, `rest` () the mean variance
    of all other directions.
    """
    shape, codes = codes.shape[1:], codes.float().flatten(1)
    mean, std = codes.mean(0), codes.std(0)
    values, vectors = _principal(codes - mean, axes)
    high = max(1, int(0.999 * len(codes)))
    low = min(len(codes), int(0.001 * len(codes)) + 1)
    upper = torch.stack([column.kthvalue(high).values for column in codes.T])
    lower = torch.stack([column.kthvalue(low).values for column in codes.T])
    left = math.prod(shape) - len(values)
    return {
        "mean": mean.view(shape),
        "std": std.view(shape),
        "upper": upper.view(shape),
        "lower": lower.clamp(max=0).view(shape),
        "axes": vectors.T.contiguous(),
        "variances": values,
        "rest": (std.square().sum() - values.sum()).clamp(min=0) / left
        if left
        else values[-1].clone(),
    }


def _principal(centred: Tensor, axes: int) -> tuple[Tensor, Tensor]:
    """Variances (axes,) and directions (units, axes) of the leading principal axes of (n, units)."""
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
