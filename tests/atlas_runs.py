"""Folders such as the commands write them, for tests of the atlas; no network is needed."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from phosphene.forms import Record
from phosphene.records import pixels_sha256
from phosphene.units import Target, Unit

SHA = "5" * 64
CLASSES = ["lion, king of beasts", "jellyfish", "school bus"]
OBJECTS = ["building", "sky", "tree"]


def colours(number: int, side: int = 24) -> np.ndarray:
    """A picture of its own for each number."""
    return np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def lone(text: str, label: str = "") -> Target:
    layer, _, channel = text.rpartition(":")
    return Target(((1.0, Unit(layer, int(channel))),), label or text)


def write_picture(
    folder: Path,
    name: str,
    target: Target,
    *,
    seed: int = 0,
    score: float = 9.5,
    pixels: np.ndarray | None = None,
    animated: bool = False,
    request: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a picture with its record, whose path is returned.

    `changes` replace the record's fields.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = colours(seed) if pixels is None else pixels
    asked = {
        "subject": "tiny-objects",
        "prior": "tiny-fc6",
        "climb": {"steps": 20},
        "start": "random",
    }
    record = Record(
        target=str(target),
        label=target.label,
        request={**asked, "members": [[target.as_json(), seed]], "member": 0, **(request or {})},
        weights={"subject": SHA, "prior": "7" * 64},
        score=score,
        start_score=-0.5,
        curve=[-0.5, 2.0, 7.0, score],
        status="climbed",
        image=f"{name}.png",
        image_sha256=pixels_sha256(pixels),
        command="rm -rf everything",
        versions={"phosphene": "0.1.0"},
    )
    (folder / f"{name}.png").write_bytes(encoded(pixels))
    if animated:
        frames = [Image.fromarray(colours(i, len(pixels))) for i in range(3)]
        frames[0].save(folder / f"{name}.webp", save_all=True, append_images=frames[1:])
    file = folder / f"{name}.json"
    file.write_text(json.dumps({**asdict(record), **changes}), encoding="utf-8")
    return file


def write_exemplars(
    folder: Path, units: list[str], classes: list[str] = CLASSES, **changes: Any
) -> Path:
    """Three photographs for each unit; `changes` replace what is said of the first one."""
    (folder / "tiles").mkdir(parents=True, exist_ok=True)
    rows = []
    for i, unit in enumerate(units):
        strip = np.concatenate([colours(10 * i + n, 20) for n in range(3)], axis=1)
        (folder / "tiles" / f"{i}.webp").write_bytes(encoded(strip, "webp"))
        row = {
            "unit": unit,
            "label": unit,
            "values": [8.0 - i / 100, 7.5, 7.0],
            "photographs": [3, 14, 15],
            "classes": [i % 3, i % 3, 0],
            "positions": [[1, 1]] * 3,
            "boxes": [[0.0, 0.25, 0.5, 0.75], [0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]],
            "quantiles": {"0.01": 0.1, "0.5": 1.5, "0.99": 6.0},
            "silent": 0.125,
            "whole": f"tiles/{i}.webp",
            "nearest": [[units[(i + 1) % len(units)], 0.81], ["elsewhere:7", 0.5]],
        }
        rows.append(row)
    rows[0] |= changes
    whole = {
        **of_subject(),
        "data": "photographs",
        "split": "train",
        "seen": 1200,
        "k": 3,
        "tile": 20,
    }
    return _write(folder / "exemplars.json", {**whole, "classes": classes, "units": rows})


def write_dissection(folder: Path, layer: str, channels: int, objects: list[str] = OBJECTS) -> Path:
    """Every other channel detects an object."""
    rows = [
        {
            "unit": f"{layer}:{c}",
            "object": objects[c % len(objects)],
            "iou": 0.11 if c % 2 else 0.01,
            "others": [["wall", 0.005]],
        }
        for c in range(channels)
    ]
    about = {
        "layer": layer,
        "data": "scenes",
        "quantile": 0.005,
        "detector_above": 0.04,
        "photographs": 300,
    }
    return _write(folder / "dissection.json", {**of_subject(), **about, "units": rows})


def write_evaluation(
    folder: Path, units: list[str], judge: str = "another-network", **figures: Any
) -> Path:
    """Every other unit is recognised, the later ones with the larger ratio."""
    rows = [
        {
            "unit": unit,
            "label": unit,
            "recognised_top1": float(i % 2),
            "activation_ratio": 1 + i / 10,
            "glow": 0.25,
        }
        for i, unit in enumerate(units)
    ]
    told = {"recognised_top1": {"value": 0.73, "low": 0.63, "high": 0.81, "n": 100}, **figures}
    layer = units[0].rpartition(":")[0]
    about = {"judge": judge, "data": "photographs", "layer": layer, "figures": told}
    return _write(
        folder / "evidence" / f"evaluation-{judge}.json", {**of_subject(), **about, "units": rows}
    )


def write_all(folder: Path) -> list[Path]:
    """Output units with everything, hidden units with evidence only, and combinations."""
    run, units = folder / "run", [f"fc:{i}" for i in range(12)]
    for i, unit in enumerate(units):
        name = ["lion", "jellyfish", "school bus"][i % 3] + (f" {i}" if i > 2 else "")
        for seed in (0, 1):
            target, file = lone(unit, name), f"fc-{i}-s{seed}"
            pixels = colours(100 * i + seed)
            write_picture(
                run, file, target, seed=seed, score=5.0 + i, pixels=pixels, animated=i < 2
            )
    difference = Target(((1.0, Unit("fc", 0)), (-1.0, Unit("fc", 1))), "lion - jellyfish")
    write_picture(run, "difference", difference)
    write_picture(run, "least", lone("fc:2", "school bus").negative(), score=3.0)
    natural = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 1000, "note": "photographs held out"}
    write_evaluation(run, units, natural_top1=natural, glow={"value": 0.5, "note": "of nothing"})
    write_evaluation(run, units, "third-network")
    hidden = [f"conv2:{i}" for i in range(6)]
    write_exemplars(folder / "exemplars", [*units, *hidden])
    write_dissection(folder / "dissection", "conv2", 6)
    return [run, folder / "exemplars", folder / "dissection"]


def of_subject() -> dict[str, Any]:
    return {"format": 1, "subject": "tiny-objects", "subject_sha256": SHA}


def _write(file: Path, value: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")
    return file
