"""Networks in `.onnx` files, converted to torch where that is possible, else without gradients."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import BadFile, BadRequest, PhospheneError, one_line
from phosphene.networks.sources.exported import (
    USUAL_SIZE,
    card_of_file,
    options_beside,
    reading,
    size_of_file,
)
from phosphene.networks.sources.loading import (
    LoadedNetwork,
    checked_network,
    checked_options,
    extra_module,
)

MAX_BYTES = (2 << 30) - 1
"""Bytes of the file and of the tensors beside it; more does not fit into one protocol buffer."""

_DYNAMIC = (
    "torch.onnx.export(model.eval(), (images,), 'net.onnx', "
    "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))"
)


class Asked(nn.Module):
    """Ask ONNX Runtime for a network's answer, without gradients."""

    def __init__(self, session: Any, output: str, why: str):
        super().__init__()
        self.session, self.output, self.why = session, output, why
        self.add_module(output, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        """Return the answer through the module `output`, so that it can be read as a layer's."""
        if torch.is_grad_enabled() and images.requires_grad:
            raise BadRequest(self.why)
        return self.get_submodule(self.output)(_answer(self.session, images))


def load(path: Path) -> LoadedNetwork:
    """Return a network with each ONNX value as a layer.

    Where it cannot be converted, its output is its only layer.
    """
    beside = options_beside(path)
    onnx, runtime = extra_module("onnx"), extra_module("onnxruntime", "onnx")
    with reading(path):
        model, others = _model(onnx, path)
        session = _session(runtime, model)
    batch, channels, stated = _input(path, session, beside)
    size = stated or USUAL_SIZE
    output = _plain(session.get_outputs()[0].name)
    network, why = _converted(model, session, size, beside.get("channels", channels))
    if network is not None:
        output = _logits(model.graph, network) or output
    if network is None:
        why = f"{path} cannot be climbed: {why}; it can judge, by phosphene evaluate --judge {path}"
        network = Asked(
            session, output, f"{why}, and a program of torch.export.save could be climbed"
        )
    given = {"output": output, "channels": channels, **beside, "size": size}
    options = checked_options(str(path), network, given)
    card = {
        **card_of_file(path, beside, stated is None, others, len(options["mean"])),
        "source": "onnx",
        "version": model.producer_version,
    }
    made = LoadedNetwork(network, **options, card=card, batch=batch, layout=torch.contiguous_format)
    return checked_network(str(path), made, network)


_SATURATING = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid")
_KEEPING = ("Cast", "Flatten", "Identity", "Log", "Reshape", "Squeeze", "Unsqueeze")
"""What may follow a softmax and changes nothing but shape, type and scale."""


def _logits(graph: Any, network: nn.Module) -> str:
    """Return the layer of the logits where the graph ends in a softmax or a sigmoid of them.

    "" where it ends otherwise.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    node = made_by.get(graph.output[0].name)
    while node is not None and node.op_type in _KEEPING:
        node = made_by.get(node.input[0])
    if node is None or node.op_type not in _SATURATING:
        return ""
    layer = _plain(node.input[0])
    return layer if layer in dict(network.named_modules()) else ""


def _model(onnx: ModuleType, path: Path) -> tuple[Any, list[Path]]:
    """Return the model with all of its tensors, and the files beside it that hold some of them."""
    if path.stat().st_size > MAX_BYTES:
        raise BadFile(
            f"{path} has {path.stat().st_size:,} bytes; more than {MAX_BYTES:,} is not read"
        )
    model = onnx.load_model(path, load_external_data=False)
    helper = onnx.external_data_helper
    stored = [
        helper.ExternalDataInfo(tensor)
        for tensor in _tensors(model.graph)
        if helper.uses_external_data(tensor)
    ]
    files = [path.parent / name for name in sorted({str(each.location) for each in stored})]
    for file in files:
        if file.parent != path.parent or file.is_symlink() or not file.is_file():
            raise BadFile(f"{path} keeps tensors in {str(file)!r}, which is no file beside it")
    total = sum(file.stat().st_size for file in [path, *files]) + sum(
        each.length or 0 for each in stored
    )
    if total > MAX_BYTES:
        raise BadFile(
            f"{path} and the tensors beside it have {total:,} bytes; "
            f"more than {MAX_BYTES:,} is not read"
        )
    helper.load_external_data_for_model(model, str(path.parent))
    onnx.checker.check_model(model)
    _simplify(model.graph)
    return model, files


def _simplify(graph: Any) -> None:
    """Remove what the converter does not expect and changes nothing.

    That are modes that are off and copies of tensors.
    """
    for node in graph.node:
        for attribute in [
            each for each in node.attribute if each.name == "training_mode" and not each.i
        ]:
            node.attribute.remove(attribute)
    if any(
        attribute.HasField("g") or attribute.graphs
        for node in graph.node
        for attribute in node.attribute
    ):
        return  # the graphs within may use such a copy
    kept = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    copies = [node for node in graph.node if node.op_type == "Identity" and node.input[0] in kept]
    original = {node.output[0]: node.input[0] for node in copies if node.output[0] not in outputs}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = original.get(name, name)
    for node in copies:
        if node.output[0] in original:
            graph.node.remove(node)


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield every tensor of a graph, also in its nodes' attributes and the graphs within them."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for within in (attribute.g, *attribute.graphs):
                yield from _tensors(within)


def _session(runtime: ModuleType, model: Any) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what fails is raised
    return runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _input(path: Path, session: Any, beside: Mapping[str, Any]) -> tuple[int, int, Any]:
    """Return how many images at once (0: any number), of how many channels and of what size.

    Where the file does not fix the channels, they are RGB.
    """
    inputs = session.get_inputs()
    shape = [side if isinstance(side, int) else 0 for side in inputs[0].shape] if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or inputs[0].type != "tensor(float)":
        shown = ", ".join(f"{each.type} of {each.shape}" for each in inputs)
        raise BadRequest(
            f"{path} reads {shown or 'nothing'}; "
            "a network of images reads floats, (batch, channels, height, width), alone"
        )
    if shape[0] > 1:
        raise BadRequest(
            f"{path} was exported for {shape[0]} images at a time; for any number: {_DYNAMIC}"
        )
    return shape[0], shape[1] or 3, size_of_file(path, shape[2:], beside)


def _converted(model: Any, session: Any, size: Any, channels: int) -> tuple[nn.Module | None, str]:
    """Return the model as a torch network, or why there is none.

    There is none without a converter, or where the converter's gives another answer.
    """
    try:
        network = _torch_network(extra_module("onnx2pytorch", "onnx"), model)
        images = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            ours = network(images)
    except PhospheneError as error:
        return None, str(error)
    except Exception as error:  # of every kind: there are as many converters as operators
        why = f"{type(error).__name__}: {one_line(error)[:200]}"
        return None, f"it cannot be converted to torch ({why})"
    theirs = _answer(session, images)
    if ours.shape != theirs.shape or not torch.allclose(
        ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())
    ):
        return None, "converted to torch it gives another answer than ONNX Runtime's"
    return network, ""


def _torch_network(converter: ModuleType, model: Any) -> nn.Module:
    """Return the converter's network with one output and layers named after ONNX values."""

    class Converted(converter.ConvertModel):  # type: ignore[misc, name-defined]
        def forward(self, images: Tensor) -> Tensor:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)
                outputs = super().forward(images)
            return outputs[0] if isinstance(outputs, list) else outputs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the comparison with ONNX Runtime finds what they mean
        network: nn.Module = Converted(model).eval()
    _name_by_values(network)
    return network


def _name_by_values(network: Any) -> None:
    """Name each module after its ONNX value, with `_` for what a layer's name may not hold."""
    for value, name in network.mapping.items():
        module = network._modules.pop(name, None)
        if module is None:  # a function, which is no layer
            continue
        plain = _plain(value)
        while hasattr(network, plain):
            plain += "_"
        network.add_module(plain, module)
        network.mapping[value] = plain


def _plain(value: str) -> str:
    return re.sub(r"\W+", "_", value.removesuffix("_output_0")).strip("_") or "value"


def _answer(session: Any, images: Tensor) -> Tensor:
    pixels = images.detach().float().cpu().contiguous().numpy()
    (answer, *_) = session.run(
        [session.get_outputs()[0].name], {session.get_inputs()[0].name: pixels}
    )
    return torch.from_numpy(np.asarray(answer)).to(images.device)
