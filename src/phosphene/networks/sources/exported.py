"""Networks in files that are programs: `.pt2` of torch.export, and what `.onnx` shares with it.

What a file says is checked before torch may read it. Neither kind of file states its preprocessing,
so a JSON file of the same name beside it may: `net.json` for `net.pt2`, with any of `size`, `mean`,
`std`, `classes` and `output`.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from phosphene.errors import BadFile, BadRequest, UnknownName, one_line
from phosphene.files import PROGRAM, read_json, really_is
from phosphene.networks.sources.loading import (
    LoadedNetwork,
    checked_network,
    checked_options,
    sha256_of,
)
from phosphene.tensors import first_tensor

MAX_BYTES = 4 << 30
"""Bytes; a bigger file is refused before it is opened."""

USUAL_SIZE = (224, 224)
"""(height, width) in pixels, where nothing says any."""

_DYNAMIC = (
    "torch.export.export(model.eval(), (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))"
)

_COPIED = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+"
    r"|data/(weights|constants)/model_\w+_config\.json"
)
_LEFT_OUT = re.compile(r"data/sample_inputs/model\.pt|extra/.*")
"""The pictures that a program was traced with, a pickle, are not needed; nor are notes."""

_PLAIN = re.compile(r"[\w.:@+-]*")
_STACK = re.compile(r"[\w.:@+,;-]*")
_EXPRESSION = re.compile(
    r"(Symbol\('[su]\d{1,9}'|(Integer|Add|Mul|FloorDiv|Mod|Max|Min)\("
    r"|(positive|integer)=True|-?\d{1,12}|[(), ])*"
)
_TARGET = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)\w+\.\w+|math\.trunc"
    r"|torch\.sym_(not|int|float|ite|max|min|sqrt)"
    r"|_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_)"
)
_ARGUMENTS = re.compile(
    r"as_(none|expr|name|scalar_type|memory_format|layout|device|(optional_)?tensors?|strings?"
    r"|(sym_)?(int|float|bool)s?)"
)
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def load(path: Path) -> LoadedNetwork:
    """Return a program of `torch.export.save`, with the modules it was traced from as layers."""
    beside = options_beside(path)
    with reading(path):
        archive, version = _archive(path)
        program = torch.export.load(archive)
        network = torch.export.unflatten(program)
        batch, channels, size = _input(path, program, beside)
    given = {"output": _output(program), **channels, **beside, "size": size or USUAL_SIZE}
    options = checked_options(str(path), network, given)
    card = {
        **card_of_file(path, beside, size is None, channels=len(options["mean"])),
        "source": "torch.export",
        "version": version,
    }
    return checked_network(
        str(path),
        LoadedNetwork(network, **options, card=card, batch=batch, layout=torch.contiguous_format),
        lambda images: first_tensor(network(images)),
    )


def options_beside(path: Path) -> dict[str, Any]:
    """Return what the JSON file beside a network says of it; nothing where there is none."""
    if not path.is_file():
        raise UnknownName(f"no file {str(path)!r}")
    if path.stat().st_size > MAX_BYTES:
        raise BadFile(
            f"{path} has {path.stat().st_size:,} bytes; more than {MAX_BYTES:,} is not read"
        )
    file = path.with_suffix(".json")
    try:
        beside = read_json(file) if file.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(
            f"{file}, which should state the preprocessing of {path.name}, is not JSON: {error}"
        ) from None
    if not isinstance(beside, dict):
        raise BadFile(
            f"{file} is no JSON object; write for example {{"
            '"size": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}'
        )
    if beyond := {"inputs", "frames"} & beside.keys():
        raise BadFile(f"{file}: {min(beyond)} are for networks of python:MODULE:FACTORY alone")
    return beside


def card_of_file(
    path: Path,
    beside: Mapping[str, Any],
    any_size: bool,
    others: Iterable[Path] = (),
    channels: int = 3,
) -> dict[str, Any]:
    """Return where a network is from, and what its file left to be assumed."""
    file = path.with_suffix(".json")
    silent = [key for key in ("mean", "std") if key not in beside]
    of_rgb = f"ImageNet's {' and '.join(silent)}"
    assumed = [of_rgb if channels == 3 else "values in 0 … 1 as they are"] if silent else []
    if any_size:
        assumed.append(f"{USUAL_SIZE[0]} × {USUAL_SIZE[1]} pixels")
    card = {
        "weights": path.name,
        "licence": "not said",
        "sha256": sha256_of([path, *([file] if beside else []), *others]),
    }
    if assumed:
        card["assumed"] = f"{', '.join(assumed)}; {file.name} beside it may say others"
    return card


def _input(
    path: Path, program: torch.export.ExportedProgram, beside: Mapping[str, Any]
) -> tuple[int, dict[str, int], Any]:
    """Return how many images at once (0: any number) the program reads.

    With it come their `channels`, where the program fixes them, and their size.
    """
    names = program.graph_signature.user_inputs
    shapes = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]
    if len(names) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
        shown = ", ".join(str(tuple(shape)) for shape in shapes)
        raise BadRequest(
            f"{path} reads {shown or 'no tensor'}; "
            "a network of images reads (batch, channels, height, width) alone"
        )
    batch, channels, *sides = ((side if isinstance(side, int) else 0) for side in shapes[0])
    if batch > 1:
        raise BadRequest(
            f"{path} was exported for {batch} images at a time; for any number: {_DYNAMIC}"
        )
    fixed = {"channels": channels} if channels else {}
    return batch, fixed, size_of_file(path, sides, beside)


def _output(program: torch.export.ExportedProgram) -> str:
    """Return the path of the last module on the way to the program's (first) result.

    Where that way ends in a softmax or a sigmoid, the logits before it count: the modules that the
    softmax lies in are passed over.
    """
    node = next(node for node in program.graph.nodes if node.op == "output").all_input_nodes[0]
    beyond: set[str] = set()
    if (last := _saturating(node)) is not None:
        node, beyond = last.all_input_nodes[0], set(_modules(last))
    while True:
        # what follows the last module, a flatten or a product, is passed over
        path = next((path for path in reversed(_modules(node)) if path not in beyond), "")
        if path or not node.all_input_nodes:
            return path
        node = node.all_input_nodes[0]


def _modules(node: torch.fx.Node) -> list[str]:
    """Return the paths of the modules that an operation lies in, the outermost first."""
    return [where for where, _ in node.meta.get("nn_module_stack", {}).values()]


_SATURATING = re.compile(r"aten\._?(log_)?(softmax|sigmoid)\b")
_KEEPING = re.compile(
    r"aten\.(_to_copy|_unsafe_view|alias|clone|contiguous|dropout|flatten|log|reshape|squeeze|to"
    r"|unsqueeze|view)\b"
)
"""What may follow a softmax and changes nothing but shape, type and scale."""


def _saturating(node: torch.fx.Node) -> torch.fx.Node | None:
    """Return the softmax or sigmoid that an operation's values come from, if they do."""
    while node.op == "call_function":
        if _SATURATING.match(str(node.target)):
            return node
        if not _KEEPING.match(str(node.target)) or not node.all_input_nodes:
            return None
        node = node.all_input_nodes[0]
    return None


def size_of_file(path: Path, sides: list[int], beside: Mapping[str, Any]) -> Any:
    """Return the (height, width) of images that a file's network reads.

    They are the file's own where these are fixed, else what the JSON beside it says. None where
    neither says any.
    """
    if not all(sides):
        return beside.get("size")
    stated = beside.get("size", sides)
    if stated not in (sides, sides[0] if sides[0] == sides[1] else sides):
        raise BadRequest(
            f"{path} was exported for {sides[0]} × {sides[1]} pixels; its JSON file says {stated!r}"
        )
    return tuple(sides)


def _archive(path: Path) -> tuple[io.BytesIO, str]:
    """Return the archive with only its tensors and a checked program, and the torch that wrote it.

    torch itself unpickles some parts of an archive, evaluates its expressions, and runs any
    function that a node names. So only numbers, shapes, names of layers and operators reach it.
    """
    clean = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(clean, "w") as new:
            version = _copy(path, old, new)
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        ValueError,
        RecursionError,
        NotImplementedError,
    ) as error:
        kind = really_is(path)
        reason = one_line(error) if kind in ("", PROGRAM) else f"it is {kind}"
        raise BadFile(f"{path} is not a whole archive of torch.export.save ({reason})") from None
    clean.seek(0)
    return clean, version


def _copy(path: Path, old: zipfile.ZipFile, new: zipfile.ZipFile) -> str:
    version, seen = "", set()
    for entry in old.infolist():
        root, _, name = entry.filename.partition("/")
        if _LEFT_OUT.fullmatch(name):
            continue
        if not _COPIED.fullmatch(name) or entry.compress_type != zipfile.ZIP_STORED or name in seen:
            raise BadFile(
                f"{path} holds {name or root!r}, which is not read since it may run code; "
                "an archive holds tensors and one program, by torch.export.save(program, 'net.pt2')"
            )
        seen.add(name)
        raw = old.read(entry)
        if name == "models/model.json":
            program = json.loads(raw)
            version = str(program.get("torch_version", ""))
            raw = json.dumps(_checked_program(path, program)).encode()
        elif name.endswith(".json"):
            _check_payload(path, json.loads(raw))
        new.writestr(f"model/{name}", raw)
    if "models/model.json" not in seen:
        raise BadFile(
            f"{path} holds no program of the form that torch {torch.__version__} saves; "
            "export it again"
        )
    new.writestr("model/data/sample_inputs/model.pt", b"")
    return version


def _check_payload(path: Path, config: Any) -> None:
    for name, entry in config["config"].items():
        if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            raise BadFile(
                f"{path} keeps {name!r} as a pickle, which may run code; save plain tensors"
            )
    _check(path, config, "")


def _checked_program(path: Path, program: dict[str, Any]) -> dict[str, Any]:
    """Return the program without its notes and guards, once the rest is known to run no code."""
    module = program["graph_module"]
    module["metadata"], program["guards_code"] = {}, []
    for node in module["graph"]["nodes"]:
        node["metadata"] = {
            key: node["metadata"][key] for key in ("nn_module_stack",) if key in node["metadata"]
        }
        if any(
            each["name"] in ("train", "training") and each["arg"].get("as_bool")
            for each in node["inputs"]
        ):
            raise BadRequest(f"{path} was exported while training; export model.eval()")
    _check(path, program, "")
    return program


def _check(path: Path, value: Any, key: str) -> None:
    """Refuse a text in a program that torch could take for more than a name, shape or operator."""
    if isinstance(value, dict):
        for name, each in value.items():
            fine = _PLAIN.fullmatch(name) and (
                not name.startswith("as_") or _ARGUMENTS.fullmatch(name)
            )
            if not fine:
                raise BadFile(f"{path} holds {name[:40]!r}, which may run code; it is not read")
            _check(path, each, name)
    elif isinstance(value, list):
        for each in value:
            _check(path, each, key)
    elif key in ("in_spec", "out_spec"):
        _check_containers(path, json.loads(value))
    elif isinstance(value, str) and key not in ("as_string", "as_strings"):
        form = {"target": _TARGET, "expr_str": _EXPRESSION, "nn_module_stack": _STACK}.get(
            key, _PLAIN
        )
        if not form.fullmatch(value):
            if key == "target":
                raise BadFile(
                    f"{path} calls {value[:60]!r}, which is no tensor operator of torch, "
                    "so it is not run"
                )
            raise BadFile(f"{path} holds {value[:60]!r}, which may run code; it is not read")


def _check_containers(path: Path, spec: Any) -> None:
    """Refuse inputs and outputs in other containers than tuples, lists and dicts.

    Torch would import the module of any other container.
    """
    if isinstance(spec, list):
        for each in spec:
            _check_containers(path, each)
    elif isinstance(spec, dict):
        keys = json.loads(spec["context"] or "null") or []
        if spec["type"] not in _CONTAINERS or not all(isinstance(each, str) for each in keys):
            raise BadFile(
                f"{path} takes or returns {spec['type']!r}; "
                "export a module that returns the logits alone"
            )
        _check_containers(path, spec["children_spec"])


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever torch raises over a program into one line, without torch's log and warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated", FutureWarning
            )
            yield
    except (BadFile, BadRequest):
        raise
    except Exception as error:  # of every kind: another version of torch may have written the file
        if (kind := really_is(path)) not in ("", PROGRAM):
            raise BadFile(f"{path} cannot be read (it is {kind})") from None
        raise BadFile(
            f"{path} cannot be read ({type(error).__name__}: {one_line(error)[:300]})"
        ) from None
    finally:
        logging.disable(before)
