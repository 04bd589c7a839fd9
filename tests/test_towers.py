"""Backbones and towers of 🤗 transformers, and texts as targets, on tiny random models."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import Run

import phosphene as package
from phosphene.errors import BadFile, BadRequest
from phosphene.subjects import load_subject

SIDE = 32
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
LOOK = {"image_size": SIDE, "patch_size": 8}
WORDS = ("[PAD]", "[UNK]", "[EOS]", "a", "photograph", "of", "lighthouse", "dog", "the")
TEXTS = ("a photograph of a lighthouse", "the dog")


@pytest.fixture
def transformers(torchvision: ModuleType) -> ModuleType:
    return pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("towers")


def tokenizer(library: ModuleType, length: int) -> Any:
    """Return a tokenizer of whole words that ends each text with a token, and fills it up."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A [EOS]", special_tokens=[("[EOS]", 2)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[EOS]"}
    return library.PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=length, **names)


def model(library: ModuleType, kind: str) -> Any:
    """Return a tiny random model without a classifier."""
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": len(WORDS), "max_position_embeddings": 8}
    text |= {"eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 1}
    if kind == "clip":
        config = library.CLIPConfig(
            text_config=text, vision_config={**SMALL, **LOOK}, projection_dim=12
        )
        return library.CLIPModel(config)
    if kind == "siglip":
        config = library.SiglipConfig(text_config=text, vision_config={**SMALL, **LOOK})
        return library.SiglipModel(config)
    if kind == "dinov2":
        return library.Dinov2Model(library.Dinov2Config(**SMALL, **LOOK))
    return library.ViTModel(library.ViTConfig(**SMALL, **LOOK), add_pooling_layer=kind == "vit")


@pytest.fixture
def folder(transformers: ModuleType, folders: Path, request: pytest.FixtureRequest) -> Path:
    """A tiny model as `save_pretrained` writes it, with its processor and tokenizer; read only."""
    kind = request.param
    path = folders / kind
    if not path.exists():
        model(transformers, kind).eval().save_pretrained(path)
        look = {"size": {"height": SIDE, "width": SIDE}}
        transformers.ViTImageProcessor(**look).save_pretrained(path)
        if kind in ("clip", "siglip"):
            tokenizer(transformers, 8).save_pretrained(path)
    return path


def kinds(*names: str) -> Any:
    return pytest.mark.parametrize("folder", names, indirect=True)


@kinds("vit", "vit-without-pooler", "dinov2")
def test_a_backbone_loads_and_its_layers_are_those_of_transformers(
    transformers: ModuleType, folder: Path
) -> None:
    subject = load_subject(f"hf:{folder}")
    assert (subject.classes, subject.size) == ((), (SIDE, SIDE))
    network = transformers.AutoModel.from_pretrained(folder).eval()
    images = torch.rand(2, 3, SIDE, SIDE)
    layer = next(path for path in subject.shapes() if path in ("layernorm", "encoder.layernorm"))
    with subject.reading([layer]) as read, torch.no_grad():
        found = read(subject.prepare(images))
        theirs = network((images - 0.5) / 0.5).last_hidden_state
    patches = found[layer].flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches, theirs[:, 1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[f"{layer}@class"], theirs[:, 0], rtol=1e-4, atol=1e-5)


@kinds("clip", "siglip")
def test_a_tower_s_embedding_is_that_of_transformers(
    transformers: ModuleType, folder: Path
) -> None:
    subject = load_subject(f"hf:{folder}")
    network = transformers.AutoModel.from_pretrained(folder).eval()
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        theirs = network.get_image_features(pixel_values=(images - 0.5) / 0.5)
    theirs = theirs if isinstance(theirs, torch.Tensor) else theirs.pooler_output
    found = subject(images)
    torch.testing.assert_close(found, theirs / theirs.norm(dim=-1, keepdim=True))
    assert subject.output == "embedding"


@kinds("clip", "siglip")
def test_a_text_s_score_is_the_cosine_that_transformers_compares_by(
    transformers: ModuleType, folder: Path
) -> None:
    network = transformers.AutoModel.from_pretrained(folder).eval()
    subject = load_subject(f"hf:{folder}")
    result = package.synthesize(
        subject, [f'text:"{text}"' for text in TEXTS], prior="pixels", steps=4, shift=0
    )
    tokens = tokenizer(transformers, 8)(list(TEXTS), padding="max_length", return_tensors="pt")
    given = {key: value for key, value in tokens.items() if key != "token_type_ids"}
    margin = (result.images.shape[-1] - SIDE) // 2
    shown = result.images[..., margin : margin + SIDE, margin : margin + SIDE]
    with torch.no_grad():
        out = network(pixel_values=(shown - 0.5) / 0.5, **given)
    cosine = (out.image_embeds * out.text_embeds).sum(-1)
    torch.testing.assert_close(result.scores, cosine, rtol=1e-3, atol=1e-4)
    assert all(result.scores > result.start_scores)
    assert [str(each.target) for each in result.members] == [f"embedding:<{t}>" for t in TEXTS]


@kinds("clip")
def test_a_text_is_a_target_of_the_command_line_and_its_record_needs_no_text_tower(
    folder: Path, phosphene: Run, tmp_path: Path
) -> None:
    climb = ("--prior", "pixels", "--steps", 3, "--out", tmp_path / "a", "--json")
    (made,) = phosphene("synthesize", f"hf:{folder}", f'text:"{TEXTS[0]}"', *climb).json()
    assert made["label"] == TEXTS[0]
    record = Path(made["image"]).with_suffix(".json")
    again = phosphene("synthesize", "--record", record, "--out", tmp_path / "b")
    assert again.fine()
    assert "not the same" not in again.err


@kinds("clip")
def test_the_difference_of_two_texts_is_one_target(folder: Path) -> None:
    subject = load_subject(f"hf:{folder}")
    (target,) = subject.targets(f'text:"{TEXTS[0]}" - text:"{TEXTS[1]}"')
    assert target.label == f"{TEXTS[0]} - {TEXTS[1]}"
    assert [weight for weight, _ in target.terms] == [1, -1]


@kinds("clip", "siglip")
def test_a_tower_at_random_reads_texts_too(folder: Path) -> None:
    first, again = (load_subject(f"hf:{folder}@random") for _ in range(2))
    assert first.text_vector(TEXTS[0]) == again.text_vector(TEXTS[0])
    assert first.text_vector(TEXTS[0]) != first.text_vector(TEXTS[1])


def test_texts_need_a_text_tower(zoo: Path) -> None:
    with pytest.raises(BadRequest, match="reads no texts; hf:OWNER/NAME of a CLIP"):
        load_subject(zoo / "subject.safetensors").targets('text:"a dog"')


@kinds("clip")
def test_a_folder_without_a_tokenizer_says_so(folder: Path, tmp_path: Path) -> None:
    import shutil

    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    for file in mine.glob("tokenizer*"):
        file.unlink()
    subject = load_subject(f"hf:{mine}")
    with pytest.raises(BadFile, match=r"no tokenizer .* tokenizer\.json belongs into"):
        subject.text_vector("a dog")
