"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phosphene.errors import OutOfSpace


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Lend a scratch path whose file takes `path`'s place at the end; on any failure `path` stays as it was.

    Makes the folder. A disk that takes no more, or a folder that may not be written, is `OutOfSpace`.
    """
    scratch = path.parent / f".{path.name}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        reason = error.strerror or error
        raise OutOfSpace(f"cannot write {path}: {reason}; what was finished before is kept") from None
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
