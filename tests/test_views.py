"""Layers that are no modules: what a layer reads, and attention heads, told by hand."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import phosphene
from phosphene.errors import UnknownName
from phosphene.subjects import Subject
from phosphene.testing import TinyNet, hook_count, lively

SIDE = 32
HEADS = 4
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "intermediate_size": 24,
    "image_size": SIDE,
    "patch_size": 8,
}


@pytest.fixture
def transformers(torchvision: ModuleType) -> ModuleType:
    return pytest.importorskip("transformers")


def tower(library: ModuleType, kind: str) -> tuple[nn.Module, str]:
    """Return a tiny random vision tower of 🤗 transformers, and the path of an attention."""
    torch.manual_seed(0)
    made = {
        "vit": ("ViTModel", "ViTConfig", {}, "layers.1.attention"),
        "dinov2": ("Dinov2Model", "Dinov2Config", {"mlp_ratio": 2}, "encoder.layer.1.attention"),
        "clip": (
            "CLIPVisionModelWithProjection",
            "CLIPVisionConfig",
            {"projection_dim": 8},
            "vision_model.encoder.layers.1.self_attn",
        ),
        "siglip": ("SiglipVisionModel", "SiglipVisionConfig", {}, "encoder.layers.1.self_attn"),
    }
    model, config, more, path = made[kind]
    network = getattr(library, model)(getattr(library, config)(**SMALL, **more))
    return network.eval().requires_grad_(False), path


def read_of(subject: Subject, *layers: str) -> dict[str, Tensor]:
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with subject.reading(layers) as read, torch.no_grad():
        return read(subject.prepare(images))


def tokens_of(subject: Subject, layer: str, read: dict[str, Tensor]) -> Tensor:
    """Return a layer's values as (batch, tokens, channels), the class token first."""
    names = [f"{layer}@{name}" for name in subject.token_names(layer)]
    ahead = [read[name][:, None] for name in names]
    return torch.cat([*ahead, read[layer].flatten(2).transpose(1, 2)], 1)


def of_one_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q·kᵀ / √d)·v of one head, (batch, tokens, d)."""
    return (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip", "siglip"])
def test_a_head_s_output_is_its_attention_s_mean_of_values(
    transformers: ModuleType, kind: str
) -> None:
    network, path = tower(transformers, kind)
    subject = phosphene.wrap(network, size=SIDE)
    parts = [f"{path}.{each}" for each in ("q_proj", "k_proj", "v_proj")]
    width = SMALL["hidden_size"] // HEADS
    for head in range(HEADS):
        layer = f"{path}.head{head}"
        assert subject.heads()[layer] == (width, SIDE // 8, SIDE // 8)
        read = read_of(subject, layer, *parts)
        own = slice(head * width, (head + 1) * width)
        q, k, v = (tokens_of(subject, part, read)[..., own] for part in parts)
        torch.testing.assert_close(tokens_of(subject, layer, read), of_one_head(q, k, v))


def test_heads_of_timm_are_read_ahead_of_the_projection(timm: ModuleType) -> None:
    torch.manual_seed(0)
    network = timm.models.VisionTransformer(SIDE, 8, embed_dim=16, depth=2, num_heads=HEADS)
    subject = phosphene.wrap(network, size=SIDE)
    read = read_of(subject, "blocks.1.attn.qkv", "blocks.1.attn.head2")
    qkv = tokens_of(subject, "blocks.1.attn.qkv", read).unflatten(2, (3, HEADS, 4))
    q, k, v = (qkv[:, :, part, 2] for part in range(3))
    found = tokens_of(subject, "blocks.1.attn.head2", read)
    torch.testing.assert_close(found, of_one_head(q, k, v))
    (target,) = subject.targets("blocks.1.attn.head2:3@class")
    assert str(target) == "blocks.1.attn.head2:3@class"
    with pytest.raises(UnknownName, match="head2 has 4 channels"):
        subject.targets("blocks.1.attn.head2:4")
    with pytest.raises(UnknownName, match=r"no layer 'blocks.1.attn.head4'; near: blocks.1.attn"):
        subject.targets("blocks.1.attn.head4:0")


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_a_hidden_neuron_of_an_mlp_is_what_its_second_layer_reads(
    transformers: ModuleType, kind: str
) -> None:
    network, path = tower(transformers, kind)
    subject = phosphene.wrap(network, size=SIDE)
    block = path.rpartition(".")[0]
    layers = [f"{block}.mlp.{each}" for each in ("fc2.in", "activation_fn", "fc1")]
    hidden, activated, product = (read_of(subject, layer)[layer] for layer in layers)
    torch.testing.assert_close(hidden, activated)
    assert not torch.equal(hidden, product)
    assert subject.targets(f"{block}.mlp.fc2.in:23@2,1")
    with pytest.raises(UnknownName, match="24 channels"):
        subject.targets(f"{block}.mlp.fc2.in:24@2,1")


def test_the_residual_stream_is_read_between_attention_and_mlp(timm: ModuleType) -> None:
    torch.manual_seed(0)
    network = timm.models.VisionTransformer(SIDE, 8, embed_dim=16, depth=1, num_heads=HEADS)
    subject = phosphene.wrap(network, size=SIDE)
    start = "blocks.0.norm1.in"
    middle = "blocks.0.norm2.in"
    read = read_of(subject, start, middle, "blocks.0.attn", "blocks.0.mlp", "blocks.0")
    torch.testing.assert_close(read[middle], read[start] + read["blocks.0.attn"])
    torch.testing.assert_close(read["blocks.0"], read[middle] + read["blocks.0.mlp"])


def test_what_a_layer_reads_is_kept_as_it_was_and_the_pass_stops_there() -> None:
    network = lively(TinyNet())
    subject = phosphene.wrap(network, size=14)
    ran: list[str] = []
    images = torch.rand(2, 3, 14, 14)
    network.fc.forward = lambda values: ran.append("fc")  # type: ignore[method-assign]
    with subject.reading(["relu.in", "block"]) as read:
        found = read(images)
    torch.testing.assert_close(found["relu.in"], network.conv(images))
    assert (found["relu.in"] < 0).any(), "the ReLU overwrites what it read"
    with subject.reading(["fc.in"]) as read:
        assert read(images)["fc.in"].shape == (2, 288)
    assert not ran
    assert hook_count(network) == 0


def test_a_head_is_climbed(transformers: ModuleType) -> None:
    network, path = tower(transformers, "vit")
    subject = phosphene.wrap(network, size=SIDE)
    units = [f"{path}.head1:2@class", f"{path}.head1:2@3,0", f"{path}.o_proj.in:6@mean"]
    result = phosphene.synthesize(subject, units, prior="pixels", steps=20)
    assert all(result.scores > result.start_scores)


def test_views_do_not_change_the_layers_of_a_judge(transformers: ModuleType) -> None:
    network, _ = tower(transformers, "vit")
    subject = phosphene.wrap(network, size=SIDE)
    assert subject.heads()
    paths = {name for name, _ in network.named_modules()}
    assert subject.shapes().keys() <= paths
