"""Reading activations out of a network. The only room that touches hooks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from phosphene.axes import (
    BEFORE,
    TOKEN_MODULES,
    Tokens,
    channels_first,
    makes_sequences,
    shape_of_maps,
    with_patches,
)
from phosphene.errors import BadRequest, UnknownName
from phosphene.tensors import device_of, first_tensor
from phosphene.views import READ, View, plain, views_of

Read = Callable[[Tensor], dict[str, Tensor]]

_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Threshold)
_FLAT = frozenset(
    {"relu", "relu6", "clamp", "clamp_min", "threshold", "hardtanh", "hardswish", "hardsigmoid"}
)
"""Functions with a flat part, where no gradient comes back. `x.relu_()` and `aten.relu` count."""


class _Deepest(Exception):
    """Raised by the hook that has everything: nothing deeper is needed."""


def find_layer(network: nn.Module, layer: str, name: str = "the network") -> nn.Module:
    """Return the module at a `named_modules()` path; `UnknownName` tells the near ones.

    Of a view it is the module whose output or input the view takes.
    """
    path = layer_path(network, layer, name)
    return network.get_submodule(_module_read(network, path, views_of(network)))


def _module_read(network: nn.Module, layer: str, views: Mapping[str, View]) -> str:
    """Return the path of the module that runs for a layer: its own, or that which a view takes."""
    source = _source(layer, views)
    paths = {path for path, _ in network.named_modules()}
    return source if source in paths else source.removesuffix(READ)


def _is_input(network: nn.Module, layer: str) -> bool:
    """Return whether a layer is what a module reads, and no module itself."""
    path = layer_path(network, layer)
    return path.endswith(READ) and path not in {each for each, _ in network.named_modules()}


def _source(layer: str, views: Mapping[str, View]) -> str:
    """Return the layer whose values are read for a layer: itself, or that which a view takes."""
    while layer in views:
        layer = views[layer].layer
    return layer


def kind_of(network: nn.Module, layer: str) -> str:
    """Return what a table calls a layer: its module's class, or what a view is."""
    view = views_of(network).get(layer)
    if view is not None:
        return view.kind
    module = find_layer(network, layer)
    of_export = getattr(module, "type_name", None)  # the class before the export
    exported = of_export() if callable(of_export) else None
    return str(exported or type(module).__name__).rpartition(".")[2]


def layer_path(network: nn.Module, layer: str, name: str = "the network") -> str:
    """Return the `named_modules()` path of a layer.

    It may be written as in a wrapper that was taken off the network, such as `module.fc`, or
    without one that is still in it. `UnknownName` tells the near ones.
    """
    paths = [path for path, _ in network.named_modules() if path]
    known = [*paths, *(view for view in views_of(network) if view not in paths)]
    if layer in known:
        return layer
    if layer.endswith(READ):
        return layer_path(network, layer.removesuffix(READ), name) + READ
    same = [path for path in known if layer and _unwrapped(path) == _unwrapped(layer)]
    if len(same) == 1:
        return same[0]
    near = get_close_matches(layer, known, n=3, cutoff=0.4)
    near += [path for path in known if path.count(".") == 0 and path not in near][: 3 - len(near)]
    raise UnknownName(f"{name} has no layer {layer!r}; near: {', '.join(near) or 'none'}")


def _unwrapped(layer: str) -> list[str]:
    return [part for part in layer.split(".") if part not in ("_orig_mod", "module")]


@contextmanager
def borrowed(network: nn.Module) -> Iterator[None]:
    """Give a network back as it was: on its device, each of its modules in train or eval mode."""
    modes = [(module, module.training) for module in network.modules()]
    device = device_of(network)
    try:
        yield
    finally:
        network.to(device)
        for module, mode in modes:
            module.training = mode


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Lend a network without a weight or buffer that needs a gradient, and give it back as it was.

    A tensor that cannot be told so is exchanged for a copy: one that was computed of others, and
    one from `torch.inference_mode`, which no gradient may pass.
    """
    told: list[Tensor] = []
    exchanged: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in [plain(network), *network.modules()]:
            for kept, name, value in _weights_of(module):
                if value.is_leaf and not value.is_inference():
                    value.requires_grad_(False)
                    told.append(value)
                else:
                    kept[name] = _copied(value)
                    exchanged.append((kept, name, value))
        yield
    finally:
        for value in told:
            value.requires_grad_()
        for kept, name, value in exchanged:
            kept[name] = value


def _weights_of(module: nn.Module) -> list[tuple[dict[str, Any], str, Tensor]]:
    """Return a module's own weights and buffers that a gradient must not need, and their places."""
    return [
        (kept, name, value)
        for kept in (module._parameters, module._buffers)
        for name, value in kept.items()
        if value is not None and (value.requires_grad or value.is_inference())
    ]


def _copied(value: Tensor) -> Tensor:
    copied = value.detach().clone()
    return nn.Parameter(copied, False) if isinstance(value, nn.Parameter) else copied


def run(network: nn.Module, inputs: Tensor) -> object:
    """Return what a network makes of its inputs, each of its modules run as it was written.

    What was compiled by `torch.compile` without hooks would not call those that came later.
    """
    if not any(hasattr(module, "_orig_mod") for module in network.modules()):
        return network(inputs)
    with torch.compiler.set_stance("force_eager"):
        return network(inputs)


@contextmanager
def redirected() -> Iterator[None]:
    """Let a gradient through the ReLUs of every pass in the `with` that would stop it.

    This is the rule of Olah et al. (2017): where a ReLU lets nothing of an image's gradient
    through, the part of it that asks for more goes on as if the ReLU were not there. Values stay as
    they are.
    """
    with _Redirecting():
        yield


class _Redirecting(TorchFunctionMode):
    """Redirect in modules, functions, methods and exported operators; not in compiled scripts."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        values = args[0] if args else None
        name = str(getattr(function, "__name__", "")).partition(".")[0].strip("_")
        if name not in _FLAT or not isinstance(values, Tensor) or not values.requires_grad:
            return function(*args, **(kwargs or {}))
        arrived: list[Tensor | None] = []
        if values.ndim > 1:  # images come first; one number for each has no direction to go on in
            values.register_hook(lambda gradient: _let_through(gradient, arrived))
        result = function(*args, **(kwargs or {}))
        result.register_hook(arrived.append)
        return result


def _let_through(gradient: Tensor | None, arrived: Sequence[Tensor | None]) -> Tensor | None:
    """Return the gradient ahead of a ReLU, given the one that arrived behind it; None keeps it."""
    if gradient is None or not arrived or arrived[-1] is None:  # cut behind, as by quantization
        return None
    stopped = (gradient.flatten(1) == 0).all(1).view(-1, *[1] * (gradient.ndim - 1))
    return torch.where(stopped, arrived[-1].clamp(min=0), gradient)


@contextmanager
def probe(
    network: nn.Module, layers: Iterable[str], tokens: Tokens | None = None
) -> Iterator[Read]:
    """Lend a function from inputs to activations by layer; hooks live only inside the `with`.

    The network is frozen meanwhile (see `frozen`). The forward pass stops at the deepest layer
    asked for. A key made by `before(layer)` reads the layer ahead of its closing ReLU where it has
    one (it is absent otherwise). A layer that runs several times gives the first run that keeps the
    batch, one that returns several tensors its first tensor. Maps that have their channels last are
    given with their channels first. A view (see `views`) is read like a layer.

    `tokens` says how values of three axes are read. Patches, (batch, tokens, channels), become a
    map (batch, channels, rows, columns); the tokens ahead of them, (batch, channels), are given
    under the keys made by `at_token(layer, name)`. Other tokens are (batch, channels, tokens). The
    layers of a sequence, such as those of nn.Conv1d, keep their order: (batch, channels, length).
    With None, as version 0.1.0 did, all three axes are (batch, tokens, channels).
    """
    found: dict[str, Tensor] = {}
    images: int = 0
    size: tuple[int, int] | None = None
    # None until the first pass, in which the hooks keep nothing
    lines: list[str] | None = [] if tokens is None else None
    handles: list[RemovableHandle] = []
    asked = list(dict.fromkeys(layers))
    views = views_of(network)
    # lists, since torch.compile's guards take the order of a set for its content
    keys = list(dict.fromkeys(_read_for(key, views) for key in asked))
    wanted = [key for key in keys if not key.endswith(BEFORE)]

    def lacks(key: str) -> bool:
        """Return whether no run kept the batch: windows or tokens may be folded into it."""
        return key not in found or found[key].shape[:1] != (images,)

    def keep(layer: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            if lines is not None and lacks(layer):
                found[layer] = channels_first(first_tensor(output), size, layer in lines)
                if not any(map(lacks, wanted)):
                    raise _Deepest
                found[layer] = found[layer].clone()  # an in-place ReLU after it would overwrite it

        return hook

    def keep_input(key: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if lines is not None and lacks(key):
                layer = key.removesuffix(BEFORE).removesuffix(READ)
                first = channels_first(first_tensor(inputs), size, layer in lines)
                found[key] = first.clone()  # an in-place ReLU would overwrite it
                if key in wanted and not any(map(lacks, wanted)):
                    raise _Deepest

        return hook

    def read(inputs: Tensor) -> dict[str, Tensor]:
        nonlocal size, images, lines
        size = shape_of_maps(inputs, tokens, network)
        images = len(inputs)
        lines = sorted(sequences(network, inputs)) if lines is None else lines
        found.clear()
        try:
            run(network, inputs)
        except _Deepest:  # torch.compile does not take `suppress`
            pass
        _check_found(found, wanted, images)
        return _with_views(with_patches(found, tokens, lines, inputs), asked, views)

    try:
        for key in keys:
            module, reads_input = _read_at(network, key)
            if module is not None and reads_input:
                handles.append(module.register_forward_pre_hook(keep_input(key)))
            elif module is not None:
                handles.append(module.register_forward_hook(keep(key)))
        with frozen(network):
            yield read
    finally:
        for handle in handles:
            handle.remove()


def _read_at(network: nn.Module, key: str) -> tuple[nn.Module | None, bool]:
    """Return the module whose values a key means, and whether it is the module's input.

    A layer that ends in no ReLU has nothing ahead of one.
    """
    name = key.removesuffix(BEFORE)
    layer = find_layer(network, name)
    if _is_input(network, name):
        return layer, True
    if not key.endswith(BEFORE):
        return layer, False
    return _closing_activation(layer), True


def _read_for(key: str, views: Mapping[str, View]) -> str:
    """Return the key of what has to be read for a key: of a view, it is what the view takes."""
    layer = key.removesuffix(BEFORE)
    return _source(layer, views) if layer in views else key


def _with_views(
    given: dict[str, Tensor], asked: Sequence[str], views: Mapping[str, View]
) -> dict[str, Tensor]:
    """Return what was asked for of what was read, and of the views that are made of it."""
    if not any(key.removesuffix(BEFORE) in views for key in asked):
        return given
    made: dict[str, Tensor] = {}
    for key in asked:
        view = views.get(key.removesuffix(BEFORE))
        if view is None:
            continue
        values = view.opened if key.endswith(BEFORE) else view.values
        if values is not None:
            parts = _parts(view, given, views)
            made |= {key + token: values(part) for token, part in parts.items()}
    own = {key: value for key, value in given.items() if key.partition("@")[0] in asked}
    return own | made


def _parts(view: View, given: Mapping[str, Tensor], views: Mapping[str, View]) -> dict[str, Tensor]:
    """Return what a view takes, by token; one of the whole layer takes no tokens."""
    parts = _by_token(view.layer, given, views)
    return {"": parts[""]} if view.whole else parts


def _by_token(
    layer: str, given: Mapping[str, Tensor], views: Mapping[str, View]
) -> dict[str, Tensor]:
    """Return a layer's values by what follows its name: "", or "@" and a token's name."""
    if layer in views:
        parts = _parts(views[layer], given, views)
        return {token: views[layer].values(part) for token, part in parts.items()}
    keys = [key for key in given if key == layer or key.startswith(f"{layer}@")]
    return {key.removeprefix(layer): given[key] for key in keys}


def _check_found(found: dict[str, Tensor], wanted: list[str], images: int) -> None:
    """Refuse a layer that never ran, and one whose values are of no one image."""
    missing = [key for key in wanted if key not in found]
    if missing:
        raise UnknownName(f"the forward pass never runs layer {', '.join(sorted(missing))}")
    for layer, values in found.items():
        if values.shape[:1] != (images,):
            rows = values.shape[0] if values.ndim else "no"
            raise BadRequest(
                f"layer {layer.removesuffix(BEFORE)} gives {rows} rows for "
                f"{images} image{'s' if images > 1 else ''}"
            )
        if values.is_complex():
            raise BadRequest(
                f"layer {layer.removesuffix(BEFORE)} gives complex numbers, which have no order; "
                "a layer behind it may take their size by abs()"
            )


Note = Callable[[str, nn.Module, tuple[Tensor, ...], object], None]
"""Called with a module's path, the module, what it read and what it made."""


@contextmanager
def _noting(network: nn.Module, note: Note) -> Iterator[None]:
    """Call `note` after each run of each module; the network's own path is ""."""

    def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
        return lambda module, read, output: note(path, module, read, output)

    handles = []
    try:
        for path, module in network.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):  # it takes no hook
                handles.append(module.register_forward_hook(hook(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_shapes(
    network: nn.Module, inputs: Tensor, tokens: Tokens | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the output shape, without the batch, of every layer that runs, as `probe` gives it.

    They come in order of completion, each followed by its tokens ahead of the patches. What folds
    windows into the batch, or gives the same for all images, has no units and is left out.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    size = shape_of_maps(inputs, tokens, network)
    images = len(inputs)
    in_order = sequences(network, inputs) if tokens else set()

    def note(path: str, module: nn.Module, read: tuple[Tensor, ...], output: object) -> None:
        with suppress(UnknownName):  # a module whose output is no tensor has no units
            value = channels_first(first_tensor(output), size, path in in_order)
            if path and value.shape[:1] == (images,) and path not in shapes:
                given = with_patches({path: value}, tokens, in_order, inputs)
                shapes.update({key: tuple(each.shape[1:]) for key, each in given.items()})

    with _noting(network, note), _without_gradient():
        run(network, inputs)
    return shapes


def view_shapes(
    network: nn.Module, inputs: Tensor, tokens: Tokens | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every view, as `layer_shapes` does: what layers read, heads, features."""
    shapes: dict[str, tuple[int, ...]] = {}
    size = shape_of_maps(inputs, tokens, network)
    in_order = sequences(network, inputs) if tokens else set()

    def note(path: str, module: nn.Module, read: tuple[Tensor, ...], output: object) -> None:
        with suppress(UnknownName):  # what reads no tensor, or none of each image
            for key, value in ((path, first_tensor(output)), (path + READ, first_tensor(read))):
                known = key in shapes or not value.is_floating_point()
                if path and value.shape[:1] == (len(inputs),) and not known:
                    value = channels_first(value, size, path in in_order)
                    given = with_patches({key: value}, tokens, in_order, inputs)
                    shapes.update({name: tuple(part.shape[1:]) for name, part in given.items()})

    with _noting(network, note), _without_gradient():
        run(network, inputs)
    views = _shapes_of_views(shapes, views_of(network))
    paths = {path for path, _ in network.named_modules()}
    read = {key: shape for key, shape in shapes.items() if key.partition("@")[0] not in paths}
    return read | views


def _shapes_of_views(
    shapes: Mapping[str, tuple[int, ...]], views: Mapping[str, View]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each view, and of its tokens, from those of what they take."""
    found: dict[str, tuple[int, ...]] = {}
    for name, view in views.items():
        source = _source(name, views)
        if view.whole and source in shapes:
            found[name] = (view.channels,)
            continue
        for key, shape in shapes.items():
            if key == source or key.startswith(f"{source}@"):
                found[name + key.removeprefix(source)] = (view.channels, *shape[1:])
    return found


@contextmanager
def _without_gradient() -> Iterator[None]:
    """Take no gradients, and silence the warning of a re-entrant checkpoint about that."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad")
        yield


def sequences(network: nn.Module, inputs: Tensor) -> set[str]:
    """Return the layers whose values of three axes are (batch, channels, length).

    A module's type tells it, such as nn.Conv1d. Any other, such as nn.ReLU or a block of one's own,
    takes after the last value of the same shape: what it read, what its last part made.
    """
    if not any(makes_sequences(module) for module in network.modules()):
        return set()
    kept = _kept.setdefault(network, {})
    key = (str(network), tuple(inputs.shape[1:]))
    if key not in kept:
        kept[key] = _sequences(network, inputs[:2].detach())
    return kept[key]


_kept: WeakKeyDictionary[nn.Module, dict[object, set[str]]] = WeakKeyDictionary()


def _sequences(network: nn.Module, inputs: Tensor) -> set[str]:
    found: set[str] = set()
    last: dict[tuple[int, ...], bool] = {}  # by shape: is it a sequence?

    def note(path: str, module: nn.Module, read: tuple[Tensor, ...], output: object) -> None:
        with suppress(UnknownName):
            value = first_tensor(output)
            if value.ndim != 3:
                return
            shape = tuple(value.shape)
            follows = not isinstance(module, TOKEN_MODULES) and last.get(shape, False)
            last[shape] = makes_sequences(module) or follows
            if last[shape]:
                found.add(path)

    with _noting(network, note), _without_gradient():
        run(network, inputs)
    return found


def layer_sizes(network: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Return the root mean square of each layer's output; the network's own is under ""."""
    sizes: dict[str, float] = {}

    def note(path: str, module: nn.Module, read: tuple[Tensor, ...], output: object) -> None:
        with suppress(UnknownName, RuntimeError):  # no tensor; inside of torch.func.vmap
            made = first_tensor(output)
            made = (made.abs() if made.is_complex() else made).double()
            sizes.setdefault(path, float(made.square().mean().sqrt()))

    with _noting(network, note), _without_gradient():
        run(network, inputs)
    return sizes


@dataclass(frozen=True)
class _Ran:
    """A module that ran, with what it read and what it made of that."""

    path: str
    kind: str
    read: Tensor | None
    made: Tensor


def lost_gradient(network: nn.Module, inputs: Tensor, layer: str) -> str:
    """Return where the gradient from a layer to a network's inputs is lost, "" where it is not.

    Only what depends on the inputs can lose it: a layer that is the same for their negative, such
    as an embedding of positions or what lies behind a ReLU that is shut, tells nothing.
    """
    with frozen(network):
        return _lost_gradient(network, inputs, _module_read(network, layer, views_of(network)))


def _lost_gradient(network: nn.Module, inputs: Tensor, layer: str) -> str:
    inputs = inputs.detach().requires_grad_()
    negative = (-inputs).detach().requires_grad_()
    runs = zip(_ran(network, inputs, layer), _ran(network, negative, layer), strict=False)
    ran = [one for one, other in runs if not torch.equal(one.made, other.made)]
    if not ran or ran[-1].path != layer or _flows(ran[-1].made, inputs):
        return ""
    low, high = 0, len(ran) - 1  # the gradient reaches none from `high` on
    while low < high:
        middle = (low + high) // 2
        if _flows(ran[middle].made, inputs):
            low = middle + 1
        else:
            high = middle
    first = ran[high]
    inside = first.read is not None and _flows(first.read, inputs)
    return f"{'in' if inside else 'before'} {first.path} ({first.kind})"


def _ran(network: nn.Module, inputs: Tensor, layer: str) -> list[_Ran]:
    """Return the modules that run up to a layer, in the order of their completion."""
    ran: list[_Ran] = []

    def note(path: str, module: nn.Module, read: tuple[Tensor, ...], output: object) -> None:
        if not path:
            return
        kind = type(module).__name__
        quantized = "quantized" in type(module).__module__
        first = read[0] if read and isinstance(read[0], Tensor) else None
        with suppress(UnknownName):  # a module whose output is no tensor
            made = first_tensor(output)
            ran.append(_Ran(path, f"quantized {kind}" if quantized else kind, first, made))
        if path == layer:
            raise _Deepest

    with _noting(network, note), suppress(_Deepest):
        run(network, inputs)
    return ran


def _flows(made: Tensor, inputs: Tensor) -> bool:
    """Return whether a gradient comes from what was made to the inputs."""
    if not made.requires_grad:
        return False
    drawn = torch.randn(made.shape, generator=torch.Generator().manual_seed(0)).to(made)
    try:
        (gradient,) = torch.autograd.grad(
            (made * drawn).sum(), inputs, retain_graph=True, allow_unused=True
        )
    except RuntimeError:  # re-entrant checkpointing refuses such a gradient
        return False
    return gradient is not None and bool((gradient != 0).any())


def _closing_activation(layer: nn.Module) -> nn.Module | None:
    if isinstance(layer, _ACTIVATIONS):
        return layer
    last = list(layer.children())[-1:] if isinstance(layer, nn.Sequential) else []
    return _closing_activation(last[0]) if last else None
