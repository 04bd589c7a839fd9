"""A generator's weights before training, and the statistics of its code.

The weights may come from another generator: its decoder, and a map to its latents in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from phosphene.errors import BadRequest
from phosphene.kept import Content, kept
from phosphene.networks import build
from phosphene.networks.generator import ImageGenerator, MapToLatent, TwoStageGenerator
from phosphene.priors import Generated, load_generated
from phosphene.tensors import center_crop, resized
from phosphene.training.components import principal, shown
from phosphene.training.inversion import DECODER, Inversion
from phosphene.training.latents import Views, regress, whiten, whiten_code
from phosphene.training.optimization import mixed_precision, placed
from phosphene.training.translation import Translation, translation_of

SHARED = (*DECODER, "size")
"""What of the architecture the two generators must have in common."""


@dataclass(frozen=True, eq=False)
class Initialized:
    """Hold a generator that has seen no image, its code's statistics, and its teacher's sha256.

    `translation` is that from its code to its teacher's, where it began so.
    """

    generator: ImageGenerator
    statistics: dict[str, Tensor]
    parents: tuple[str, ...]
    translation: Translation | None = None


def initialized(inversion: Inversion) -> Initialized:
    """Return a generator that has seen no image.

    Its teacher, `[init_from] generator`, is a trained two-stage generator of any code. It draws
    `[init_from] views` views of photographs from its own code. Its decoder becomes this
    generator's, and the latents become the goal of a ridge regression on this generator's codes.
    With `regress = "codes"`, the goal is the teacher's code, and all of its layers are taken over.
    Without a teacher, only the codes are found. Computed once and kept beside the run.
    """
    recipe = inversion.recipe
    name = recipe["init_from"].get("generator", "")
    teacher = load_generated(name) if name else None
    _check(recipe["init_from"], inversion.architecture, teacher)
    parents = (str(teacher.card["sha256"]),) if teacher else ()
    torch.manual_seed(recipe["seed"] + 1)
    generator = cast("ImageGenerator", build(inversion.architecture))
    alone = replace(inversion, recipe={**recipe, "image": {}})
    identity = alone.identity("image", parents)
    runtime = inversion.runtime
    file = runtime.folder / f"begin-{identity[:16]}.safetensors"
    make = partial(_made, inversion, generator, teacher)
    found = kept(file, {"beginning": identity}, make, runtime.processes)
    generator.load_state_dict(_under("network.", found))
    known = _under("translation.", found)
    translation = Translation(**known, r2=found["r2"]) if known else None
    return Initialized(generator, _under("code.", found), parents, translation)


def _made(inversion: Inversion, generator: ImageGenerator, teacher: Generated | None) -> Content:
    """Return the weights of a generator, set so, and what else is kept of its beginning."""
    more: Content = {}
    if teacher is None:
        codes = torch.cat([codes for codes, _ in _shown(inversion)])
        whiten_code(generator, codes, inversion.damped)
    elif _translates(inversion.recipe["init_from"]):
        codes, translation = _translated(inversion, cast("TwoStageGenerator", generator), teacher)
        more = {"translation.weight": translation.weight, "translation.offset": translation.offset}
        more |= {"r2": translation.r2}
    else:
        views = _drawn(inversion, teacher)
        codes = views.codes
        follower = cast("TwoStageGenerator", generator)
        theirs = cast("TwoStageGenerator", teacher.generator)
        _taken_over(follower.decoder, theirs.decoder.state_dict())
        whiten(follower, views, inversion.damped)
        initialize_map(follower, views)
    more |= {f"network.{name}": value for name, value in generator.state_dict().items()}
    statistics = code_statistics(codes, inversion.axes)
    return more | {f"code.{name}": value for name, value in statistics.items()}


def _taken_over(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights of a teacher; what the network has beyond them stays as it is."""
    network.load_state_dict({**network.state_dict(), **state})


def _translates(table: dict[str, Any]) -> bool:
    """Return whether a table begins with a regression of codes; `BadRequest` where it is none."""
    goal = table.get("regress", "latents")
    if goal not in ("latents", "codes"):
        raise BadRequest(f"[init_from] regress is latents or codes; got {goal!r}")
    return bool(goal == "codes")


def _under(prefix: str, tensors: Content) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, their names without it."""
    return {n.removeprefix(prefix): each for n, each in tensors.items() if n.startswith(prefix)}


def _check(table: dict[str, Any], own: dict[str, Any], teacher: Generated | None) -> None:
    """Refuse a recipe whose generator cannot be initialized so, with `BadRequest`."""
    views = table["views"]
    if not isinstance(views, int) or views < 2:
        raise BadRequest(f"[init_from] views is a number of views, at least 2; got {views!r}")
    if teacher is None:
        if own["name"] == "two-stage":
            raise BadRequest(
                "a two-stage generator begins from another, [init_from] generator, or has all four "
                "stages"
            )
        return
    theirs = teacher.card.get("architecture", {})
    inner = [part for part in own if part not in ("code", "view_size")]
    shared = inner if _translates(table) else SHARED
    coarse = _as_coarse(own, theirs)
    differs = [part for part in shared if coarse.get(part) != theirs.get(part)]
    if _translates(table) and not (
        isinstance(own["code"], int) and isinstance(theirs["code"], int)
    ):
        raise BadRequest('[init_from] regress = "codes" is for codes that are vectors')
    if {own["name"], theirs.get("name")} != {"two-stage"} or differs:
        wanted = ", ".join(f"{part} {own.get(part)}" for part in dict.fromkeys(("name", *shared)))
        raise BadRequest(
            f"[init_from] generator is {table['generator']!r}, which is none with {wanted}"
        )


def _as_coarse(own: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return an architecture without the doublings that it has beyond a teacher's."""
    widths, fewer = own.get("decoder", []), len(theirs.get("decoder", []))
    if not 0 < fewer < len(widths):
        return own
    parts = [part for part in ("decoder", "decoder_blocks") if part in own]
    coarse = {part: own[part][:fewer] for part in parts}
    return own | coarse | {"size": own["size"] >> (len(widths) - fewer)}


def _shown(inversion: Inversion) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield codes of some views, in half precision, and the views, a batch at a time."""
    device, encoder = inversion.runtime.device, inversion.code_encoder
    number, at = inversion.recipe["init_from"]["views"], 0
    known = torch.zeros(0) if inversion.known is None else inversion.known
    placed(encoder.network, device)
    with encoder.reading([inversion.layer]) as read, torch.no_grad():
        for x in shown(inversion, number):
            codes = known[at : at + len(x)]
            if len(codes) < len(x):
                with mixed_precision(device):
                    codes = inversion.codes(x, read)
            yield codes, x
            at += len(x)


def _both(inversion: Inversion, teacher: Generated) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield codes of some views, and the teacher's codes of the same views."""
    device = inversion.runtime.device
    own = teacher.load_encoder(inversion.encoder.name)
    size = (teacher.image_size, teacher.image_size)
    placed(own.network, device)
    with own.reading([teacher.layer]) as read, torch.no_grad():
        for mine, x in _shown(inversion):
            with mixed_precision(device):
                theirs = read(own.prepare(center_crop(resized(x, size), teacher.view_size)))[
                    teacher.layer
                ]
            yield mine, theirs.float().reshape(len(x), *teacher.statistics.mean.shape)


def _translated(
    inversion: Inversion, generator: TwoStageGenerator, teacher: Generated
) -> tuple[Tensor, Translation]:
    """Return codes of some views, and the translation with which the generator was composed."""
    pairs = list(_both(inversion, teacher))
    codes = torch.cat([mine for mine, _ in pairs])
    whiten_code(generator, codes, inversion.damped)
    master = cast("TwoStageGenerator", teacher.generator)
    theirs = master.whitened(torch.cat([each for _, each in pairs])).cpu()
    translation = translation_of(generator.whitened(codes.float()), theirs)
    translation.compose(generator, master)
    return codes, translation


def _drawn(inversion: Inversion, teacher: Generated) -> Views:
    """Return codes of some views, and the latents from which the teacher draws the same views."""
    device = inversion.runtime.device
    generator = placed(cast("TwoStageGenerator", teacher.generator), device)
    codes, latents = [], []
    with torch.no_grad():
        for mine, theirs in _both(inversion, teacher):
            with mixed_precision(device):
                latents.append(generator.latents(theirs).float().cpu())
            codes.append(mine)
    goal = torch.cat(latents)
    mean, std = goal.mean((0, 2, 3), keepdim=True), goal.std((0, 2, 3), keepdim=True)
    return Views(torch.cat(codes), ((goal - mean) / std).half(), mean, std)


def initialize_map(generator: TwoStageGenerator, views: Views) -> None:
    """Set the map's linear part to a ridge regression of latents on whitened codes."""
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
    """Do the same for codes that are maps.

    The latents of each position are regressed on the code's 3 × 3 neighbours, at all positions.
    """
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

    `axes` (axes, units) are orthonormal, `variances` (axes,) their variances, `rest` () the mean
    variance of all other directions.
    """
    shape, codes = codes.shape[1:], codes.float().flatten(1)
    mean, std = codes.mean(0), codes.std(0)
    values, vectors = principal(codes - mean, axes)
    high = max(1, int(0.999 * len(codes)))
    low = min(len(codes), int(0.001 * len(codes)) + 1)
    upper = torch.stack([column.kthvalue(high).values for column in codes.T])
    lower = torch.stack([column.kthvalue(low).values for column in codes.T])
    left = math.prod(shape) - len(values)
    rest = values[-1].clone()
    if left:
        rest = (std.square().sum() - values.sum()).clamp(min=0) / left
    return {
        "mean": mean.view(shape),
        "std": std.view(shape),
        "upper": upper.view(shape),
        "lower": lower.clamp(max=0).view(shape),
        "axes": vectors.T.contiguous(),
        "variances": values,
        "rest": rest,
    }
