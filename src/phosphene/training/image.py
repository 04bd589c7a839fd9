"""Stage 4 of a generator's training: map and decoder together, on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from phosphene import weights
from phosphene.datasets import Photographs
from phosphene.errors import BadRequest
from phosphene.networks.discriminator import Discriminator
from phosphene.networks.generator import ImageGenerator
from phosphene.probe import find_layer
from phosphene.subjects import Subject, load_subject
from phosphene.tensors import as_images, resized
from phosphene.training.adversary import Adversary
from phosphene.training.autoencoder import feature_distance
from phosphene.training.gallery import Gallery, evenly
from phosphene.training.inversion import Inversion
from phosphene.training.optimization import Averaged, compiled, mixed_precision, placed
from phosphene.training.recipes import Recipe
from phosphene.training.stage import Stage


@dataclass(frozen=True)
class _Maps:
    """What the networks give for a batch of images.

    That is the encoder's code, feature maps to compare and for the discriminator, and the
    comparator's logits, where they are asked for.
    """

    code: Tensor
    compared: list[Tensor]
    discriminated: list[Tensor]
    logits: Tensor | None


class ImageStage(Stage):
    """Train the whole generator on images, with DeePSiM's three losses: stage 4.

    (Dosovitskiy & Brox 2016, eq. 2.) Where the recipe has `extrapolated`, there are so many more
    codes, between and beyond those of the photographs. Their images should give the code again and
    fool the discriminator. Where it has `class_kl`, the comparator should name an image as it names
    its photograph.
    """

    counter = 4
    part = "generator"
    network: ImageGenerator

    def __init__(
        self,
        inversion: Inversion,
        generator: ImageGenerator,
        *,
        parents: Sequence[str] = (),
        discriminator_state: dict[str, Tensor] | None = None,
        held_out: Photographs | None = None,
    ):
        """Take a generator that is to learn, and show what it makes of `held_out` photographs.

        `parents` are the hashes of the files that the run begins from, if any, and
        `discriminator_state` the weights of the discriminator.
        """
        recipe = inversion.recipe
        self.inversion, self.runtime = inversion, inversion.runtime
        self.settings = stage = recipe["image"]
        self.seed, self.steps = recipe["seed"], stage["steps"]
        self.identity = inversion.identity("image", parents)
        device = self.runtime.device
        torch.manual_seed(self.seed + 2)
        self.network = placed(generator, device).requires_grad_(True)
        self.comparator = _comparator(inversion, device)
        heads = discriminator_heads(stage, self.comparator, generator.image_size)
        discriminator = Discriminator(heads, math.prod(generator.code_shape), stage["width"])
        if discriminator_state is not None:
            own = {name: value.clone() for name, value in discriminator_state.items()}
            weights.fill(discriminator, own, "the discriminator's file").requires_grad_(True)
            discriminator.train()
        self.discriminator = placed(discriminator, device)
        self.adversary = Adversary.of(stage, self.network, self.discriminator, self.runtime)
        self.others = self.adversary.parts()
        self.averaged = Averaged(self.network, stage["ema"])
        self.images = torch.from_numpy(inversion.photographs.images).to(device)
        if held_out and self.runtime.processes.is_main:
            few = as_images(held_out.images[evenly(len(held_out))]).to(device)
            self.shown = resized(few, (generator.image_size, generator.image_size))
            self.gallery = Gallery("reconstructions", self._rows)

    @contextmanager
    def reading(self) -> Iterator[None]:
        with _maps_of(self.inversion, self.comparator, self.network.code_shape) as self._maps:
            device = self.runtime.device
            size = self.network.image_size
            with torch.no_grad():  # the first pass remembers networks weakly: no guard can be so
                self._maps(torch.zeros(1, 3, size, size, device=device))
            self._real = compiled(self._maps, device)
            self._made = compiled(self._tried, device)
            yield

    def batch(self, step: int, rng: torch.Generator) -> Tensor:
        """Return views of photographs, drawn with replacement."""
        n = self.runtime.processes.local_batch(self.settings["batch"])
        chosen = torch.randint(len(self.images), (n,), generator=rng)
        chosen = chosen.to(self.images.device, non_blocking=True)
        return self.inversion.views(self.images[chosen], rng)

    def learn(self, step: int, batch: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad(), mixed_precision(self.runtime.device):
            real = self._real(batch)
        more = extrapolated_codes(real.code, self.settings.get("extrapolated", 0.0), rng)
        codes = torch.cat([real.code, more])
        y, made, figures, loss = self._made(codes, batch, real)
        real_maps = [batch - 0.5, *real.discriminated]
        made_maps = [y - 0.5, *made.discriminated]
        code = self.network.whitened(codes).flatten(1)
        return figures | self.adversary.step(step, loss, real_maps, made_maps, code)

    def _tried(
        self, codes: Tensor, x: Tensor, real: _Maps
    ) -> tuple[Tensor, _Maps, dict[str, Tensor], Tensor]:
        """Return images of codes, their maps, the figures, and the sum that is minimized.

        The first codes are those of the photographs `x`. Images of other codes have no photograph
        to be compared with.
        """
        with mixed_precision(self.runtime.device):
            y = self.network(codes)
            made = self._maps(y)
        n = len(x)
        shift = (made.code - codes) / self.network.code_std
        figures = {
            "image": (y[:n] - x).abs().mean(),
            "feature": feature_distance([maps[:n] for maps in made.compared], real.compared),
            "cycle": shift.square().mean(),
        }
        if made.logits is not None and real.logits is not None:
            figures["class_kl"] = class_kl(made.logits[:n], real.logits)
        weighted = [self.settings[name] * value for name, value in figures.items()]
        return y, made, figures, torch.stack(weighted).sum()

    def _rows(self) -> dict[str, Tensor]:
        """Return photographs, and images of their codes and of the means of neighbours' codes."""
        codes = self._maps(self.shown).code
        both = (codes + codes.roll(-1, 0)) / 2
        state = self.averaged.state
        return {
            "photograph": self.shown,
            "made again": functional_call(self.network, state, codes),
            "half of this, half of the next": functional_call(self.network, state, both),
        }


def check_image(inversion: Inversion) -> None:
    """Refuse a last stage that cannot be, with `BadRequest` or `UnknownName`, before the first."""
    stage, encoder = inversion.recipe["image"], inversion.encoder
    comparator = _comparator(inversion, "cpu")
    discriminator_heads(stage, comparator, inversion.architecture["size"])
    pairs = [(encoder, layer) for layer in stage["layers"]]
    pairs += [(comparator, layer) for layer in stage.get("comparator_layers", [])]
    for subject, layer in pairs:
        find_layer(subject.network, layer, subject.name)


def _comparator(inversion: Inversion, device: str) -> Subject:
    """Return the network whose features are compared: the recipe's, or else the encoder.

    It is shown images of `comparator_size` pixels, where 0 is the generator's size.
    """
    stage = inversion.recipe["image"]
    name = stage.get("comparator", "")
    if not name:
        return inversion.code_encoder
    size = stage.get("comparator_size", 0) or inversion.architecture["size"]
    if _is_encoder(inversion, name, size):
        return inversion.code_encoder
    comparator = replace(load_subject(name), size=(size, size))
    placed(comparator.network, device)
    return comparator


def _is_encoder(inversion: Inversion, name: str, size: int) -> bool:
    """Return whether the encoder looks as a comparator of this name would, at the same pixels."""
    encoder, own = inversion.encoder, inversion.architecture
    whole = own["view_size"] == own["size"]
    return name == encoder.name and whole and encoder.size == (size, size)


def discriminator_heads(stage: Recipe, comparator: Subject, size: int) -> list[tuple[int, int]]:
    """Return channels and halvings of the discriminator's heads, the image's first.

    `BadRequest` where one cannot be.
    """
    discriminated, halvings = stage["discriminator_layers"], stage["halvings"]
    for layer in discriminated:
        find_layer(comparator.network, layer, comparator.name)
    try:
        shapes = comparator.shapes()
    except RuntimeError as error:
        raise BadRequest(
            f"{comparator.name} cannot look at images of {comparator.size[0]} pixels: {error}"
        ) from None
    if len(halvings) != 1 + len(discriminated):
        raise BadRequest(
            "halvings has one number for the image and one for each of discriminator_layers; "
            f"got {halvings} for {discriminated}"
        )
    maps = [(3, size, size), *(shapes.get(layer, ()) for layer in discriminated)]
    for name, shape, times in zip(["the image", *discriminated], maps, halvings, strict=True):
        if len(shape) != 3 or min(shape[1:]) >> times == 0:
            raise BadRequest(
                f"a head judges maps that can be halved {times} times; {name} is of "
                f"{' × '.join(map(str, shape)) or 'no fixed shape'} "
                f"({comparator.name}, {comparator.size[0]} pixels)"
            )
    return [(shape[0], times) for shape, times in zip(maps, halvings, strict=True)]


@contextmanager
def _maps_of(
    inversion: Inversion, comparator: Subject, shape: tuple[int, ...]
) -> Iterator[Callable[[Tensor], _Maps]]:
    """Lend a function from images to what both networks give, the code in its shape.

    Where they are one network, it runs once. A comparator's maps are scaled, since those of a
    network from elsewhere may be of any size.
    """
    stage, layer, encoder = inversion.recipe["image"], inversion.layer, inversion.code_encoder
    own, discriminated = stage["layers"], stage["discriminator_layers"]
    named = bool(stage.get("comparator"))
    compared = stage.get("comparator_layers", []) if named else []
    output = [comparator.output] if stage.get("class_kl") else []
    for network in (encoder.network, comparator.network):
        network.requires_grad_(False)
    features = own if stage["feature"] else []
    encoder.check_gradient([*features, *([layer] if stage["cycle"] else [])])
    comparator.check_gradient([*(compared if stage["feature"] else []), *discriminated, *output])
    alone = comparator is encoder
    theirs = [*compared, *discriminated, *output]
    with (
        encoder.reading([*own, *(theirs if alone else []), layer]) as read,
        nullcontext() if alone else comparator.reading(theirs) as read_too,
    ):

        def maps_of(images: Tensor) -> _Maps:
            maps = read(inversion.prepared(images))
            code = maps[layer].float().reshape(len(images), *shape)
            others = maps if read_too is None else read_too(comparator.prepare(images))
            logits = others[comparator.output] if output else None
            both = [maps[each] for each in own] + [others[each] for each in compared]
            judged = [others[each] for each in discriminated]
            return _Maps(code, both, [_even(each) for each in judged] if named else judged, logits)

        yield maps_of


def class_kl(got: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean Kullback–Leibler divergence of the first classes from the second, in nats.

    Both are logits (batch, classes). (Hinton et al. 2015, at temperature 1.)
    """
    return F.kl_div(
        got.float().log_softmax(1),
        wanted.float().log_softmax(1),
        log_target=True,
        reduction="batchmean",
    )


def extrapolated_codes(codes: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Return codes between those of photographs and further out, where a climb leads.

    They are `share` of the number that is given. Each is a mixture of two (Reed et al. 2016, eq.
    5), of any shares. It is then moved away from the batch's mean by up to half its distance, and
    kept above the least value that its unit has in the batch: codes after a ReLU stay so.
    """
    number = round(share * len(codes))
    sides = [1] * (codes.ndim - 1)
    drawn = [torch.randint(len(codes), (number,), generator=rng) for _ in range(2)]
    drawn += [torch.rand(number, *sides, generator=rng) for _ in range(2)]
    one, other, mixture, stretch = (each.to(codes.device, non_blocking=True) for each in drawn)
    mean, least = codes.mean(0), codes.amin(0)
    between = torch.lerp(codes[one], codes[other], mixture)
    return torch.maximum(mean + (1 + stretch / 2) * (between - mean), least)


def _even(maps: Tensor) -> Tensor:
    """Divide maps by the root mean square over their channels at each position."""
    return maps * (maps.float().square().mean(1, keepdim=True) + 1e-6).rsqrt().to(maps.dtype)
