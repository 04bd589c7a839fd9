"""Networks as people have them: each works through both doors, or is refused in one line."""

from __future__ import annotations

import sys
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.utils import parametrizations, prune

import phosphene
from phosphene.errors import BadRequest

SIZE = 16


def plain() -> nn.Module:
    torch.manual_seed(0)
    layers = {
        "conv": nn.Conv2d(3, 8, 3),
        "norm": nn.BatchNorm2d(8),
        "relu": nn.ReLU(),
        "drop": nn.Dropout(0.5),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "fc": nn.Linear(8, 4),
    }
    return nn.Sequential(OrderedDict(layers))


class Around(nn.Module):
    """Holds the plain network in `body`."""

    def __init__(self, made: Callable[[Tensor], Any] = lambda logits: logits):
        super().__init__()
        self.body = plain()
        self.made = made

    def forward(self, images: Tensor) -> Any:
        return self.made(self.body(images))


class WithoutGradient(Around):
    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        return self.body(images)


class InInference(Around):
    @torch.inference_mode()
    def forward(self, images: Tensor) -> Any:
        return self.body(images)


class InAutocast(Around):
    def forward(self, images: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return self.body(images)


class HalfScripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        net = plain().eval()
        self.first = torch.jit.script(net[:5])
        self.fc = net.fc

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.first(images).flatten(1))


@dataclass
class Answer:
    loss: Any
    logits: Tensor


Named = namedtuple("Named", "logits other")


def compiled_in_place() -> nn.Module:
    network = plain()
    network.compile(backend="eager")
    return network


def traced() -> nn.Module:
    made: nn.Module = torch.jit.trace(plain().eval(), torch.rand(2, 3, SIZE, SIZE))
    return made


def exported_module() -> nn.Module:
    images = (torch.rand(2, 3, SIZE, SIZE),)
    return torch.export.export(plain().eval(), images).module()


def quantized() -> nn.Module:
    body = plain().eval()
    layers = [body.conv, body.relu, body.pool, body.flat, body.fc]
    network = nn.Sequential(quantization.QuantStub(), *layers, quantization.DeQuantStub()).eval()
    network.qconfig = quantization.get_default_qconfig("fbgemm")
    prepared = quantization.prepare(network)
    prepared(torch.rand(4, 3, SIZE, SIZE))
    return quantization.convert(prepared)


def normed() -> nn.Module:
    network = plain()
    parametrizations.weight_norm(network.conv)
    return network


def pruned() -> nn.Module:
    network = plain()
    prune.l1_unstructured(network.conv, "weight", 0.5)
    return network


def of_two_types() -> nn.Module:
    network = plain()
    network.fc.half()
    return network


def learned_mean() -> nn.Module:
    network = plain()
    mean = network.norm.running_mean
    del network.norm.running_mean
    network.norm.running_mean = nn.Parameter(mean)
    return network


def computed_mean() -> nn.Module:
    network = plain()
    network.norm.running_mean = network.conv.bias * 0
    return network


def made_in_inference() -> nn.Module:
    with torch.inference_mode():
        return plain()


TAKEN: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "plain": (plain, "fc"),
    "in train mode": (lambda: plain().train(), "fc"),
    "half": (lambda: plain().half(), "fc"),
    "bfloat16": (lambda: plain().bfloat16(), "fc"),
    "double": (lambda: plain().double(), "fc"),
    "in autocast": (InAutocast, "body.fc"),
    "compiled": (lambda: torch.compile(plain(), backend="eager"), "fc"),
    "compiled in place": (compiled_in_place, "fc"),
    "DataParallel": (lambda: nn.DataParallel(plain()), "fc"),
    "DataParallel of compiled": (
        lambda: nn.DataParallel(torch.compile(plain(), backend="eager")),
        "fc",
    ),
    "averaged": (lambda: torch.optim.swa_utils.AveragedModel(plain()), "fc"),
    "a graph of torch.fx": (lambda: torch.fx.symbolic_trace(plain().eval()), "fc"),
    "scripted in part": (HalfScripted, "fc"),
    "normed weights": (normed, "fc"),
    "a learned mean of a batch norm": (learned_mean, "fc"),
    "a computed buffer": (computed_mean, "fc"),
    "weights of inference mode": (made_in_inference, "fc"),
    "a tuple": (lambda: Around(lambda logits: (logits, None)), "body"),
    "a list": (lambda: Around(lambda logits: [logits]), "body"),
    "a dict": (lambda: Around(lambda logits: {"logits": logits}), "body"),
    "a dict of tuples": (lambda: Around(lambda logits: {"heads": (logits, None)}), "body"),
    "a dataclass": (lambda: Around(lambda logits: Answer(None, logits)), "body"),
    "a named tuple": (lambda: Around(lambda logits: Named(logits, logits)), "body"),
    "an object": (lambda: Around(lambda logits: SimpleNamespace(logits=logits)), "body"),
    "nothing": (lambda: Around(lambda logits: None), "body"),
}
"""Networks that are the plain one in another shape, and the layer of its logits."""

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "scripted": (lambda: torch.jit.script(plain().eval()), "is scripted, so its layers"),
    "traced": (traced, "is scripted, so its layers"),
    "a module of torch.export": (exported_module, "save the program by torch.export.save"),
    "on meta": (lambda: plain().to("meta"), "conv.weight has no numbers yet"),
    "of two types": (of_two_types, "torch.float16 and torch.float32; network.float()"),
    "weights alone": (lambda: plain().state_dict(), "nn.Module"),
    "a function": (lambda: lambda images: images.mean((2, 3)), "nn.Module"),
    "several": (lambda: [plain(), plain()], "nn.Module"),
}

JUDGES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "quantized": (quantized, "5"),
    "quantized when it runs": (
        lambda: quantization.quantize_dynamic(plain().eval(), {nn.Linear}),
        "fc",
    ),
    "without gradients": (WithoutGradient, "body"),
    "in inference mode": (InInference, "body"),
}
"""Networks that answer and have no gradient, and a layer of theirs."""


@pytest.fixture(params=["wrap", "python:"])
def door(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lend what makes a subject of a network, through one of both doors."""

    def opened(make: Callable[[], Any]) -> phosphene.Subject:
        if request.param == "wrap":
            return phosphene.wrap(make(), size=SIZE)
        module = ModuleType("as_it_is")
        module.net = lambda: (make(), {"size": SIZE})
        monkeypatch.setitem(sys.modules, "as_it_is", module)
        return phosphene.load_subject("python:as_it_is:net")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells that its quantization moves elsewhere
        yield opened


@pytest.mark.parametrize("kind", TAKEN)
def test_the_same_network_in_another_shape_has_the_same_answer(door: Any, kind: str) -> None:
    make, layer = TAKEN[kind]
    subject = door(make)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with subject.reading([layer]) as read, torch.no_grad():
        answer = read(subject.prepare(images))[layer].float()
        prepared = phosphene.wrap(plain(), size=SIZE).prepare(images)
    torch.testing.assert_close(answer, plain().eval()(prepared), atol=2e-2, rtol=2e-2)
    result = phosphene.synthesize(subject, f"{layer}:1", prior="pixels", steps=3)
    assert result.scores[0] > result.start_scores[0]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line(door: Any, kind: str) -> None:
    make, words = REFUSED[kind]
    with pytest.raises(BadRequest) as caught:
        door(make)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", JUDGES)
def test_a_network_without_a_gradient_judges_and_is_not_climbed(door: Any, kind: str) -> None:
    make, layer = JUDGES[kind]
    subject = door(make)
    with subject.reading([layer]) as read, torch.no_grad():
        answer = read(subject.prepare(torch.rand(2, 3, SIZE, SIZE)))[layer]
    assert answer.shape == (2, 4)
    assert answer.dtype == torch.float32
    assert len(subject.identity) == 64
    with pytest.raises(BadRequest, match="no gradient comes through"):
        phosphene.synthesize(subject, f"{layer}:1", prior="pixels", steps=3)


def test_weights_with_zeros_are_taken_as_they_are() -> None:
    subject = phosphene.wrap(pruned(), size=SIZE)
    assert float((subject.network.conv.weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    result = phosphene.synthesize(subject, "fc:1", prior="pixels", steps=3)
    assert result.scores[0] > result.start_scores[0]


@pytest.mark.parametrize("kind", [plain, learned_mean, computed_mean, made_in_inference])
def test_weights_and_buffers_are_given_back_as_they_were(kind: Callable[[], nn.Module]) -> None:
    network = kind()
    network.conv.weight.requires_grad_(False)
    subject = phosphene.wrap(network, size=SIZE)
    tensors = [*network.named_parameters(), *network.named_buffers()]
    needed = [each.requires_grad for _, each in tensors]
    assert any(needed)
    with subject.reading(["fc"]) as read:
        values = read(subject.prepare(torch.rand(2, 3, SIZE, SIZE)))["fc"]
        assert not values.requires_grad
        assert not any(each.requires_grad for each in network.state_dict(keep_vars=True).values())
    after = [*network.named_parameters(), *network.named_buffers()]
    assert all(one is other for (_, one), (_, other) in zip(tensors, after, strict=True))
    assert [each.requires_grad for _, each in after] == needed
