"""Files that are written whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced(path: str | Path) -> Iterator[BinaryIO]:
    """Gives a file to write that becomes `path` at the end, once everything is on the disk.

    Until then, and if anything fails, what was at `path` stays. The file lies beside it, under a
    name that nothing had, so that no link is followed and two writers do not meet.

    Raises:
        OSError: if the file could not be written; nothing of it is left.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    with part.open("xb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
