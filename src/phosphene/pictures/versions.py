"""What else decides the bits of a picture: the programs and the machine."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

from phosphene import __version__
from phosphene.forms import Record

DECISIVE = ("ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "DNNL_MAX_CPU_ISA")
"""Environment variables that choose other sums."""


def versions(device: str = "cpu") -> dict[str, str]:
    """Return what else decides the bits of a picture: the programs and the machine."""
    built = torch.__config__.show()
    libraries = {"onednn": r"MKL-DNN v([\w.]+)", "mkl": r"Math Kernel Library Version ([\w.]+)"}
    found = {name: re.search(pattern, built) for name, pattern in libraries.items()}
    told = {
        "phosphene": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        **{name: match[1] if match else "none" for name, match in found.items()},
        **{name: os.environ[name] for name in DECISIVE if name in os.environ},
    }
    if not torch.backends.mkldnn.enabled:  # type: ignore[attr-defined]
        told["onednn"] = "off"
    if device == "cuda" and torch.cuda.is_available():
        told["gpu"] = torch.cuda.get_device_name()
        told["cuda"] = str(torch.version.cuda)
        told["cudnn"] = str(torch.backends.cudnn.version())
    return told


def _cpu() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def differences(old: Record, new: Record, device: str) -> str:
    """Return in words what differs between the making of two pictures of one record.

    `device` is the one that the new picture was made on.
    """
    was, now = old.versions, new.versions
    was_on = str(old.request.get("device", "cpu"))
    differing = [f"device {was_on} there, {device} here"] if was_on != device else []
    both = [name for name in now if name in was]
    differing += [
        f"{name} {was[name]} there, {now[name]} here" for name in both if was[name] != now[name]
    ]
    differing += [f"{name} {was[name]} there, unset here" for name in was if name not in now]
    untold = [name for name in now if name not in was]
    if not differing:
        differing = [f"the same {', '.join(both)}"]
    if untold:
        differing.append(f"the record does not tell its {', '.join(untold)}")
    differing.append(f"score {old.score:.6g} there, {new.score:.6g} here")
    return "; ".join(differing)
