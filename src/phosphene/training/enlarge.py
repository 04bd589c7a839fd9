"""Train an enlarger, a second stage for generators.

It is to enlarge what a climb through a first stage draws, which is smoother than a photograph made
small, and has faults of its own. So it learns on three kinds of pictures: photographs made small
and worn, whose enlargement is known; the prior's reconstructions of photographs, which show the
same thing, though not at the same place; and the prior's images of codes beyond those of
photographs, of which only a discriminator can say what they lack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from phosphene import weights
from phosphene.datasets import Stream, batched
from phosphene.errors import BadRequest
from phosphene.kept import Content, kept
from phosphene.networks import build
from phosphene.networks.discriminator import Discriminator
from phosphene.networks.enlarger import Enlarger, enlarged
from phosphene.networks.generator import ImageGenerator, smoothed
from phosphene.priors import Generated
from phosphene.runtime import Runtime
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import as_images, blurred, center_crop, resized
from phosphene.training.adversary import Adversary
from phosphene.training.autoencoder import feature_distance
from phosphene.training.gallery import Gallery, evenly
from phosphene.training.image import class_kl, discriminator_heads, extrapolated_codes
from phosphene.training.optimization import Averaged, mixed_precision, placed, seeded
from phosphene.training.recipes import Recipe, current, recipe_hash
from phosphene.training.stage import Stage, run_stage

NO_CODE = 1
"""Units of the code that the discriminator is given, all of them zero: it has to do without."""
AT_ONCE = 64
"""Photographs that the prior makes again at once."""
GRAINS = (1, 2, 4)
"""Sides of the grains of a worn picture, in pixels."""
COLOURED = 0.4
"""The deviation of its grains' colours, that of their grey being one."""
QUIET = 0.3
"""The share of its grains that is there where a picture has nothing to show."""
BUSIEST = 2.5
"""How many times as many as on the average there are at most, for the rest of them."""


@dataclass(frozen=True)
class Pairs:
    """Photographs `large`, uint8 (n, 2 size, 2 size, 3), and what the prior makes of them.

    Those are (n, size, size, 3): each photograph `reconstructed` from its code, and an
    `extrapolated` image, of a code beyond those of photographs.
    """

    large: Tensor
    reconstructed: Tensor
    extrapolated: Tensor

    def __len__(self) -> int:
        return len(self.large)


@dataclass(frozen=True, eq=False)
class TrainedEnlarger:
    """The enlarger with averaged weights, and `helpers`, what a later run goes on from.

    Those are the weights of `enlarger`, not averaged, and of `discriminator`, and the `averaged`
    ones. `steps` are done, with those of earlier runs; `finished` is true at the recipe's end.
    """

    enlarger: Enlarger
    helpers: dict[str, dict[str, Tensor]]
    finished: bool
    steps: int


@dataclass(frozen=True)
class _Maps:
    """Feature maps of a batch: to compare, by style, for the discriminator; and the logits."""

    compared: list[Tensor]
    styles: list[Tensor]
    discriminated: list[Tensor]
    logits: Tensor | None


def train_enlarger(
    recipe: Recipe,
    prior: Generated,
    photographs: Stream,
    run: Runtime | str | Path,
    *,
    init_from: weights.Weights | None = None,
    held_out: Stream | None = None,
) -> TrainedEnlarger:
    """Train until the deadline; a killed run goes on from its folder.

    `init_from` is a file of `helpers` that another run left. Of `held_out` photographs a sheet is
    kept every few minutes. `BadRequest` where the recipe asks for what cannot be.
    """
    stage = EnlargerStage(current(recipe), prior, photographs, Runtime.of(run), init_from, held_out)
    folder = run_stage(stage)
    networks = {name: stage.parts[name] for name in ("enlarger", "discriminator", "averaged")}
    helpers = {
        name: {key: value.detach().clone() for key, value in network.state_dict().items()}
        for name, network in networks.items()
    }
    return TrainedEnlarger(stage.trained(), helpers, folder.finished, stage.before + folder.done)


class EnlargerStage(Stage):
    """Train an enlarger on three kinds of pictures, against a discriminator."""

    counter = 6
    part = "enlarger"
    network: Enlarger

    def __init__(
        self,
        recipe: Recipe,
        prior: Generated,
        photographs: Stream,
        runtime: Runtime,
        init_from: weights.Weights | None = None,
        held_out: Stream | None = None,
    ):
        self.settings = stage = recipe["enlarge"]
        self.seed, self.steps, self.runtime = recipe["seed"], stage["steps"], runtime
        crop, device = stage["crop"], runtime.device
        if crop % 16 or not 0 < crop <= prior.image_size:
            raise BadRequest(
                f"[enlarge] crop is a multiple of 16, at most {prior.image_size}; got {crop}"
            )
        parent = init_from.sha256 if init_from else ""
        self.before = int(init_from.card.get("steps", 0)) if init_from else 0
        self.pairs = cached_pairs(self.seed, prior, photographs, runtime)
        source = f"{photographs.fingerprint}:{prior.card['sha256']}:{parent}"
        self.identity = recipe_hash(_lasting(recipe), source)
        torch.manual_seed(self.seed)
        enlarger = cast("Enlarger", build(dict(recipe["architecture"])))
        self.comparator = _comparator(stage, device)
        discriminator = Discriminator(
            discriminator_heads(stage, self.comparator, 2 * crop), NO_CODE, stage["width"]
        )
        if init_from is not None:
            for name, network in (("enlarger", enlarger), ("discriminator", discriminator)):
                weights.fill(network, init_from.part(name), init_from.path.name)
                network.requires_grad_(True).train()
        self.network = placed(enlarger, device)
        self.adversary = Adversary.of(stage, enlarger, placed(discriminator, device), runtime)
        self.others = self.adversary.parts()
        self.averaged = Averaged(enlarger, stage["ema"])
        if init_from is not None:
            self.averaged.load_state_dict(init_from.part("averaged"))
        if held_out:
            self._show(prior, held_out)

    @contextmanager
    def reading(self) -> Iterator[None]:
        with _maps_of(self.settings, self.comparator) as self._maps:
            yield

    def batch(self, step: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        return drawn(self.pairs, self.settings, rng, self.runtime.device)

    def learn(
        self, step: int, batch: tuple[Tensor, Tensor], rng: torch.Generator
    ) -> dict[str, Tensor]:
        small, wanted = batch
        with torch.no_grad(), mixed_precision(self.runtime.device):
            real = self._maps(wanted)
        with mixed_precision(self.runtime.device):
            y = self.network(small)
            made = self._maps(y)
            figures, loss = _losses(self.settings, small, wanted, y, real, made)
        real_maps = [wanted - 0.5, *real.discriminated]
        made_maps = [y - 0.5, *made.discriminated]
        no_code = torch.zeros(len(small), NO_CODE, device=self.runtime.device)
        return figures | self.adversary.step(step, loss, real_maps, made_maps, no_code)

    def _show(self, prior: Generated, held_out: Stream) -> None:
        """Show held-out photographs, and each kind enlarged bicubically and by the network."""
        device = self.runtime.device
        pairs = _pairs(self.seed, prior, held_out, evenly(len(held_out)), device)
        sets = (pairs.large, pairs.reconstructed, pairs.extrapolated)
        large, reconstructed, extrapolated = [as_images(each.numpy()).to(device) for each in sets]
        halved = resized(large, (prior.image_size, prior.image_size))
        kinds = {"made small": halved, "made again": reconstructed, "extrapolated": extrapolated}

        def rows() -> dict[str, Tensor]:
            found = {"photograph": large}
            for kind, images in kinds.items():
                found[f"{kind}, bicubic"] = enlarged(images).clamp(0, 1)
                state = self.averaged.state
                found[f"{kind}, enlarged"] = functional_call(self.network, state, images)
            return found

        self.gallery = Gallery("enlarged", rows)


def _lasting(recipe: Recipe) -> Recipe:
    """Leave out what may change while a run goes on: at constant rates, the number of steps."""
    stage = recipe["enlarge"]
    kept = {key: value for key, value in stage.items() if key != "steps" or stage["cosine_decay"]}
    return {**recipe, "enlarge": kept}


def drawn(
    pairs: Pairs, stage: Recipe, rng: torch.Generator, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Draw a batch, both in [0, 1]: what is to be enlarged, and pieces of photographs.

    The first is (batch, 3, crop, crop), photographs made small, then reconstructions, then images
    of codes beyond; the second, (batch, 3, 2 crop, 2 crop), is from the same place.
    """
    n = _batch(stage)
    crop = stage["crop"]
    known = stage["photographs"]
    number = torch.randint(len(pairs), (n,), generator=rng).tolist()
    room = pairs.reconstructed.shape[1] - crop + 1
    corners = torch.randint(room, (n, 2), generator=rng).tolist()
    flipped = torch.rand(n, 1, 1, 1, generator=rng).to(device) < 0.5
    pieces = [
        piece(pairs.large[i], 2 * row, 2 * column, 2 * crop)
        for i, (row, column) in zip(number, corners, strict=True)
    ]
    wanted = as_images(pieces).to(device)
    halved = resized(wanted[:known], (crop, crop))
    small = [worn(each[None], stage["blur"], stage["noise"], rng) for each in halved]
    made = [pairs.reconstructed] * stage["reconstructed"]
    made += [pairs.extrapolated] * stage["extrapolated"]
    small += [
        as_images([piece(images[i], row, column, crop)]).to(device)
        for images, i, (row, column) in zip(made, number[known:], corners[known:], strict=True)
    ]
    both = torch.cat(small), wanted
    x, y = (torch.where(flipped, images.flip(3), images) for images in both)
    return x, y


def worn(image: Tensor, blur: float, noise: float, rng: torch.Generator) -> Tensor:
    """Wear an image (1, 3, 4n, 4m) in [0, 1] as a generator does: soft, with grains and blocks.

    It is blurred by up to `blur` pixels. Of standard deviation up to `noise` are then added grains
    of one, two and four pixels, grey for the most part, more where there is more to see. Over both
    goes a share of the filter with which a decoder ends.
    """
    softness, roughness, filtered = torch.rand(3, generator=rng).tolist()
    soft = blurred(image, blur * softness)
    height, width = image.shape[-2:]
    grains = torch.zeros_like(image)
    for side in GRAINS:
        drawn_at = (height // side, width // side)
        grey = torch.randn(1, 1, *drawn_at, generator=rng)
        colours = torch.randn(1, 3, *drawn_at, generator=rng)
        grains += F.interpolate((grey + COLOURED * colours).to(image), scale_factor=side)
    grains /= (len(GRAINS) * (1 + COLOURED**2)) ** 0.5
    contrast = (soft - blurred(soft, 2.0)).abs().mean(1, keepdim=True).expand_as(soft)
    busy = blurred(contrast, 2.0)
    strength = QUIET + (1 - QUIET) * (busy / busy.mean().clamp(min=1e-4)).clamp(max=BUSIEST)
    rough = soft + noise * roughness * strength * grains
    return torch.lerp(rough, smoothed(rough), filtered).clamp(0, 1)


def piece(picture: Tensor, row: int, column: int, side: int) -> Any:
    """Cut a square of `side` pixels from a picture (height, width, 3), as numpy's array."""
    return picture[row : row + side, column : column + side].numpy()


def cached_pairs(seed: int, prior: Generated, photographs: Stream, runtime: Runtime) -> Pairs:
    """Draw a view of each photograph, and what the prior makes of it, once; keep them."""

    def make() -> Content:
        return vars(_pairs(seed, prior, photographs, None, runtime.device))

    name = recipe_hash({"seed": seed}, f"{photographs.fingerprint}:{prior.card['sha256']}")
    file = runtime.folder / f"enlarger-pairs-{name[:16]}.safetensors"
    return Pairs(**kept(file, {"pairs": name}, make, runtime.processes))


def _pairs(
    seed: int, prior: Generated, photographs: Stream, wanted: list[int] | None, device: str
) -> Pairs:
    """Make pairs of all photographs, or of those `wanted`, which are numbered in order."""
    n = len(photographs) if wanted is None else len(wanted)
    size = prior.image_size
    large = torch.empty(n, 2 * size, 2 * size, 3, dtype=torch.uint8)
    reconstructed = torch.empty(n, size, size, 3, dtype=torch.uint8)
    extrapolated = torch.empty_like(reconstructed)
    encoder = prior.load_encoder()
    generator = placed(cast("ImageGenerator", prior.generator), device)
    placed(encoder.network, device)
    at = 0
    with encoder.reading([prior.layer]) as read, torch.no_grad():
        for batch in batched(photographs.photographs(wanted), AT_ONCE):
            pictures = [pixels for _, pixels, _ in batch]
            rng = seeded(seed, 7, at)
            views = torch.cat([view(x, 2 * size, rng) for x in as_images(pictures)]).to(device)
            seen = center_crop(resized(views, (size, size)), prior.view_size)
            with mixed_precision(device):
                maps = read(encoder.prepare(seen))
                codes = maps[prior.layer].float().reshape(len(views), *generator.code_shape)
                made = generator(codes), generator(extrapolated_codes(codes, 1.0, rng))
            for whole_set, images in zip(
                (large, reconstructed, extrapolated), (views, *made), strict=True
            ):
                pixels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
                whole_set[at : at + len(views)] = pixels.permute(0, 2, 3, 1).cpu()
            at += len(views)
    return Pairs(large, reconstructed, extrapolated)


def view(image: Tensor, size: int, rng: torch.Generator) -> Tensor:
    """Cut a square of at least `size` pixels from an image (3, side, side): (1, 3, size, size)."""
    side = image.shape[-1]
    piece = int(torch.randint(min(size, side), side + 1, (), generator=rng))
    top, left = torch.randint(side - piece + 1, (2,), generator=rng).tolist()
    return resized(image[None, :, top : top + piece, left : left + piece], (size, size))


def _batch(stage: Recipe) -> int:
    return int(stage["photographs"] + stage["reconstructed"] + stage["extrapolated"])


def _comparator(stage: Recipe, device: str) -> Subject:
    """Load the network whose features are compared; it looks at the pixels as they are."""
    comparator = replace(load_subject(stage["comparator"]), size=(2 * stage["crop"],) * 2)
    placed(comparator.network, device).requires_grad_(False)
    return comparator


@contextmanager
def _maps_of(stage: Recipe, comparator: Subject) -> Iterator[Callable[[Tensor], _Maps]]:
    """Lend a function from pictures to what the comparator gives.

    At each position of the maps to judge, the mean square of the channels is one.
    """
    groups = [stage["comparator_layers"], stage["style_layers"], stage["discriminator_layers"]]
    output = [comparator.output] if stage["class_kl"] else []
    with comparator.reading(list(dict.fromkeys(chain(*groups, output)))) as read:

        def maps_of(images: Tensor) -> _Maps:
            maps = read(comparator.prepare(images))
            compared, styles, discriminated = [[maps[each] for each in group] for group in groups]
            even = [
                F.normalize(each.float(), dim=1) * each.shape[1] ** 0.5 for each in discriminated
            ]
            logits = maps[comparator.output] if output else None
            return _Maps(compared, [style(each) for each in styles], even, logits)

        yield maps_of


def style(maps: Tensor) -> Tensor:
    """Forget where things are: maps (n, c, h, w) to their means and deviations, (n, 2 c, 1, 1)."""
    maps = maps.float()
    both = [maps.mean((2, 3), keepdim=True), maps.std((2, 3), keepdim=True)]
    return torch.cat(both, 1)


def _losses(
    stage: Recipe, small: Tensor, wanted: Tensor, y: Tensor, real: _Maps, got: _Maps
) -> tuple[dict[str, Tensor], Tensor]:
    """Measure enlargements y: the figures, and their weighted sum.

    Photographs made small are compared with the photographs; reconstructions only by what does not
    hang on a place, and by their classes; all of them with what was enlarged.
    """
    known = stage["photographs"]
    of = slice(0, known + stage["reconstructed"])
    half = (small.shape[-2] // 2, small.shape[-1] // 2)
    figures = {"consistency": (resized(y, half) - resized(small, half)).abs().mean()}
    if known:
        figures["image"] = (y[:known] - wanted[:known]).abs().mean()
        compared = ([maps[:known] for maps in own.compared] for own in (got, real))
        figures["feature"] = feature_distance(*compared)
    if of.stop:
        styles = ([maps[of] for maps in own.styles] for own in (got, real))
        figures["style"] = feature_distance(*styles)
    if of.stop and got.logits is not None and real.logits is not None:
        figures["class_kl"] = class_kl(got.logits[of], real.logits[of])
    return figures, torch.stack([stage[name] * value for name, value in figures.items()]).sum()
