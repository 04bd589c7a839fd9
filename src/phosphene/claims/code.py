"""What a result depends on of this package's own code: a module and all that it imports."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
READ = {
    "training.recipes": "recipes/*.toml",
    "networks.imagenet_names": "networks/imagenet_names.txt",
}
"""Files of the package that are no modules, by the module that reads them."""


def code_hash(modules: Iterable[str], package: Path = PACKAGE) -> str:
    """Return one hash of these modules of a package and of all that they reach in it.

    Names are without the package's own: `claims.experiment`.
    """
    files = [_file(package, module) for module in reached(modules, package)]
    readers = {pattern for module, pattern in READ.items() if _file(package, module) in files}
    files += [file for pattern in readers for file in package.glob(pattern)]
    digest = hashlib.sha256()
    for file in sorted(filter(None, files)):
        text = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{file.relative_to(package).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def reached(modules: Iterable[str], package: Path = PACKAGE) -> set[str]:
    """Return those of a package's modules that some modules import: themselves, and indirectly.

    Imports within functions count, and folders that `parts.built_in` lists. A package's
    `__init__.py` counts where a name is taken from it.
    """
    found: set[str] = set()
    waiting = [module for module in modules if _file(package, module)]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imported(package, module)
    return found


def _imported(package: Path, module: str) -> Iterator[str]:
    """Yield the modules of the package that this one imports by itself."""
    file = _file(package, module)
    start = f"{package.name}."
    for node in ast.walk(ast.parse(file.read_bytes())) if file else ():
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("built_in", "load_part")
        ):
            told = ast.unparse(node.args[0]).replace("__name__", f"'{start}{module}'").strip("'")
            names = list(_listed(package, told))
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            inner = name.removeprefix(start) if name.startswith(start) else ""
            holder = inner.rpartition(".")[0]
            yield from [each for each in (inner, holder) if _file(package, each)][:1]


def _listed(package: Path, folder: str) -> Iterator[str]:
    """Yield the modules of a package's folder, such as `phosphene.priors`, that is listed."""
    place = package.joinpath(*folder.split(".")[1:])
    yield from (f"{folder}.{file.stem}" for file in sorted(place.glob("*.py")))


def _file(package: Path, module: str) -> Path | None:
    """Return the file of a module, or None where there is none."""
    path = package.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if module and file.is_file()), None)
