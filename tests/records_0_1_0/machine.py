"""Remake the records under the settings that they were made with, and tell machines apart.

    PYTHONPATH=SOURCE_OF_0.1.0 python machine.py

This adds the bits of the present machine to bits.json. Only version 0.1.0 itself may add them:
commit 2e8637e, which also added the records.

`PORTABLE` takes most differences between x86-64 machines away, but not all. Square roots of MKL
begin from the instruction `rsqrtps`, whose digits each processor chooses. Some convolutions of
oneDNN sum in another order on another processor. So version 0.1.0 makes other last digits on some
machines, and a climb enlarges them. Machines with one probe are taken to make the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

HERE = Path(__file__).parent
BITS = HERE / "bits.json"
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""The settings of the records: the instructions that all x86-64 machines have, and one thread."""
DIFFERING = ("image_sha256", "score", "start_score", "curve")
"""What another machine may make otherwise."""
CONVOLUTIONS = (
    (2, 3, 6, 20, 3, 1, 1),
    (2, 6, 8, 20, 3, 2, 0),
    (1, 4, 16, 56, 7, 2, 3),
    (2, 36, 4, 14, 1, 1, 0),
    (1, 3, 96, 115, 11, 4, 0),
    (1, 96, 64, 13, 5, 1, 2),
    (1, 128, 128, 13, 3, 1, 1),
)
"""Batch, channels read and made, pixels, kernel, stride and padding."""


def copied(folder: Path) -> Path:
    """Copy the fixture into a folder, with paths in place of their marks."""
    copy = folder / HERE.name
    shutil.copytree(HERE, copy)
    for file in (copy / "records").glob("*.json"):
        file.write_text(file.read_text().replace("@HERE@", str(copy)))
    return copy


def remade(folder: Path, source: str, names: list[str]) -> tuple[str, dict[str, dict[str, Any]]]:
    """Remake records with the phosphene of `source`; return the probe and what came out."""
    run = subprocess.run(
        [sys.executable, "-W", "error", folder / "remake.py", *names],
        cwd=folder,
        env={**os.environ, **PORTABLE, "PYTHONPATH": os.pathsep.join([source, str(folder)])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    return lines[0]["probe"], {each["name"]: each for each in lines[1:]}


def probe() -> str:
    """Return a hash of torch's version and of the bits that its operations give here."""
    import torch

    made = hashlib.sha256(torch.__version__.encode())
    for tensor in _tensors():
        made.update(tensor.detach().contiguous().numpy().tobytes())
    return made.hexdigest()[:16]


def _tensors() -> Iterator[Tensor]:
    """Yield results and gradients of operations whose last digits depend on the machine."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    numbers = np.random.default_rng(70)

    def drawn(*shape: int) -> Tensor:
        return torch.from_numpy(numbers.standard_normal(shape, np.float32)).requires_grad_()

    for count, read, made, pixels, kernel, stride, padding in CONVOLUTIONS:
        images = drawn(count, read, pixels, pixels)
        weight = drawn(made, read, kernel, kernel)
        maps = F.conv2d(images, weight, None, stride, padding)
        yield from (maps, *torch.autograd.grad(maps, (images, weight), torch.ones_like(maps)))
    for count, read, made in ((2, 32, 16), (2, 648, 5), (1, 1024, 512)):
        codes = drawn(count, read)
        weight = drawn(made, read)
        maps = F.linear(codes, weight)
        yield from (maps, *torch.autograd.grad(maps, (codes, weight), torch.ones_like(maps)))
    values = drawn(4096).detach().abs()
    yield from (values.sqrt(), values.exp(), values.log(), values.tanh(), values.sigmoid())
    yield from (values.cos(), values.pow(0.75), values.sum(), values.std(), values.softmax(0))


def main() -> None:
    """Write what this machine makes otherwise than the records into bits.json, by its probe."""
    import phosphene

    assert phosphene.__version__ == "0.1.0", f"only 0.1.0 may add bits: {phosphene.__version__}"
    names = sorted(file.stem for file in (HERE / "records").glob("*.json"))
    with tempfile.TemporaryDirectory() as folder:
        source = str(Path(phosphene.__file__).parents[1])
        here, found = remade(copied(Path(folder)), source, names)
    bits: dict[str, dict[str, Any]] = {}
    for name in names:
        record = json.loads((HERE / "records" / f"{name}.json").read_text())
        other = {key: found[name][key] for key in DIFFERING if found[name][key] != record[key]}
        bits |= {name: other} if other else {}
    known = json.loads(BITS.read_text()) if BITS.exists() else {}
    BITS.write_text(as_text({**known, here: bits}))
    print(f"probe {here}: {len(bits)} of {len(names)} records have other bits here")


def as_text(known: dict[str, dict[str, Any]]) -> str:
    """Return the sets of bits as JSON with one line for each record."""
    sets = []
    for each, bits in known.items():
        lines = ",\n".join(f'  "{name}": {json.dumps(other)}' for name, other in bits.items())
        sets.append(f' "{each}": {{\n{lines}\n }}')
    return "{\n" + ",\n".join(sets) + "\n}\n"


if __name__ == "__main__":
    main()
