"""The house stands: imports go down, hooks and pickles stay where they belong."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import phosphene

SOURCE = Path(__file__).parent.parent / "src"
TREES = {
    file: ast.parse(file.read_text(encoding="utf-8"), str(file))
    for file in sorted(SOURCE.rglob("*.py"))
}

FLOORS = {
    "__main__": 10,
    "cli": 9,
    "claims": 8,
    "studies": 7,
    "notebook": 8,
    "pictures": 6,
    "loops": 6,
    "synthesis": 5,
    "stimulus": 4,
    "screen": 1,
    "training": 4,
    "optimizers": 4,
    "testing": 4,
    "metrics": 3,
    "atlas": 3,
    "subjects": 2,
    "priors": 3,
    "objectives": 2,
    "receptive_fields": 2,
    "networks": 1,
    "constraints": 2,
    "code_statistics": 1,
    "probe": 1,
    "weights": 1,
    "records": 1,
    "forms": 0,
    "datasets": 1,
    "factories": 0,
    "kept": 0,
    "axes": 0,
    "views": 0,
    "dictionaries": 0,
    "targets": 0,
    "tensors": 0,
    "statistics": 1,
    "tables": 1,
    "layer_table": 3,
    "units": -1,
    "images": 0,
    "runtime": -1,
    "files": -1,
    "parts": -1,
    "plain": -1,
    "progress": 0,
    "errors": -2,
    "texts": -2,
}

HEAVY = (
    "torchvision",
    "timm",
    "transformers",
    "torchmetrics",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "tensorboard",
    "huggingface_hub",
)


def dotted(file: Path) -> str:
    """`phosphene.training.run` for its file; a package's `__init__.py` is the package."""
    return ".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(file) for file in TREES}


def room(module: str) -> str:
    """The room of a dotted name; the front door `phosphene` itself is the room ''."""
    return (module + ".").split(".")[1]


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one that run at import: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def imports(file: Path, nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """Every phosphene module that these nodes import, with its line.

    `from phosphene import x` is x where x is a module.

    `from phosphene import __version__` brings in no room, so it may stand anywhere.
    """
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = file.relative_to(SOURCE).parent.parts
                base = ".".join(
                    [*package[: len(package) + 1 - node.level], *filter(None, [node.module])]
                )
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [
                name if name in MODULES else base
                for name in names
                if name != "phosphene.__version__"
            ]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == "phosphene")


def found(*kinds: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    """Every node of these kinds in the whole source."""
    return (
        (file, node)
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    )


def place(file: Path, line: int) -> str:
    return f"{file.relative_to(SOURCE)}:{line}"


def defined(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module gives to it."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {
        each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
    }


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES} - {""} == FLOORS.keys()


def test_imports_only_go_down() -> None:
    wrong = [
        f"{place(file, line)} imports {name}"
        for file, tree in TREES.items()
        if (here := room(dotted(file)))
        for name, line in imports(file, ast.walk(tree))
        if (there := room(name)) != here and FLOORS.get(there, 99) >= FLOORS.get(here, 0)
    ]
    assert not wrong, wrong


def test_no_file_imports_itself_in_a_circle() -> None:
    graph = {
        dotted(file): {name for name, _ in imports(file, at_import(tree))}
        for file, tree in TREES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def test_all_is_the_public_namespace() -> None:
    names = {
        name
        for name in {*vars(phosphene), *dir(phosphene), *phosphene.__all__}
        if not name.startswith("_")
    }
    values = {name: getattr(phosphene, name) for name in names}
    other = ModuleType | type(
        annotations
    )  # the latter is what `from __future__ import annotations` leaves behind
    public = {
        name
        for name, value in values.items()
        if not isinstance(value, other) or (isinstance(value, ModuleType) and callable(value))
    }
    assert set(phosphene.__all__) == public
    assert len(phosphene.__all__) == len(public)


def test_only_probe_registers_hooks() -> None:
    hooks = re.compile(r"register_\w*hook\b")
    assert [f for f in TREES if hooks.search(f.read_text(encoding="utf-8"))] == [
        SOURCE / "phosphene" / "probe.py"
    ]


def test_nothing_unpickles() -> None:
    wrong = []
    for file, node in found(ast.Import, ast.ImportFrom, ast.Call):
        if isinstance(node, ast.Import):
            bad = any(
                alias.name.split(".")[0] in {"pickle", "_pickle", "dill", "shelve"}
                for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            unpickles = node.module in {"pickle", "_pickle", "dill", "shelve"} and names != {
                "UnpicklingError"
            }
            bad = unpickles or (node.module == "torch" and "load" in names)
        else:
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            loads = ast.unparse(node.func) == "torch.load"
            bad = options.get("allow_pickle", "False") != "False" or (
                loads and options.get("weights_only") != "True"
            )
        wrong += [place(file, node.lineno)] if bad else []
    assert not wrong, wrong


def test_only_the_command_line_prints_reads_arguments_and_exits() -> None:
    wrong = []
    for file, node in found(ast.Name, ast.Attribute, ast.ImportFrom):
        if isinstance(node, ast.ImportFrom):
            bad = node.module == "sys" and {"argv", "exit"} & {alias.name for alias in node.names}
        else:
            bad = ast.unparse(node) in {"print", "sys.argv", "sys.exit"}
        wrong += [place(file, node.lineno)] if bad and room(dotted(file)) != "cli" else []
    assert not wrong, wrong


def test_one_console_prints_all_texts_as_they_are() -> None:
    plain = SOURCE / "phosphene" / "plain.py"
    wrong = [
        place(file, node.lineno)
        for file, node in found(ast.ImportFrom)
        if node.module in {"rich", "rich.markup"}
        or (node.module == "rich.console" and file != plain)
    ]
    assert not wrong, f"print with phosphene.plain: {wrong}"


def test_no_check_disappears_under_optimisation() -> None:
    wrong = [place(file, node.lineno) for file, node in found(ast.Assert)]
    assert not wrong, f"raise instead of assert: {wrong}"


def test_no_comprehension_hides_a_name_of_its_module() -> None:
    """Python 3.12 may then take the name for a local variable in the function (PEP 709)."""
    wrong = []
    for file, node in found(ast.comprehension):
        own = {name for statement in TREES[file].body for name in defined(statement)}
        hidden = own & {each.id for each in ast.walk(node.target) if isinstance(each, ast.Name)}
        wrong += [f"{place(file, node.target.lineno)}: {name}" for name in hidden]
    assert not wrong, wrong


def test_importing_phosphene_stays_light() -> None:
    code = (
        "import sys, phosphene, phosphene.cli; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "[]\n", run.stdout + run.stderr


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "--version",
        "zoo list",
        "zoo show caffenet-objectz",
        "zoo verify caffenet-objectz",
        "layers caffenet-objectz",
        "synthesize caffenet-objectz fc8:1",
        "exemplars caffenet-objectz@random photographs fc8:1",
    ],
)
def test_what_reads_no_network_does_not_import_torch(words: str) -> None:
    code = (
        "import sys\n"
        "from phosphene.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, check=False
    )
    assert run.stderr.endswith("False\n"), run.stdout + run.stderr
    assert run.returncode == (2 if "objectz" in words else 0), run.stderr


def test_names_of_sources_are_known_without_their_loaders() -> None:
    from phosphene.factories import NETWORKS
    from phosphene.networks.sources import SOURCES

    assert list(SOURCES) == list(NETWORKS)


def test_loading_a_generator_imports_no_compiler() -> None:
    """Drawing weights on the meta device would, which takes a second."""
    code = (
        "import sys; from phosphene.priors import load_generated; "
        "generator = load_generated('objects-fc6').generator; "
        "print({each.device.type for each in generator.parameters()}, "
        "'torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "{'cpu'} False\n", run.stdout + run.stderr
