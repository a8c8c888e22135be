"""JSON files, plain or gzipped: read within bounds, written whole or not at all."""

import gzip
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any


def read_json(path: str | Path, *, hook: Callable[[dict], Any] | None = None) -> Any:
    """Reads JSON, unzipping what ends in .gz; `hook` replaces every object, innermost first.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: names the file, if it is cut off or no JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; check the path")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return json.loads(file.read(), object_hook=hook)
    except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, RecursionError) as error:
        kind = "gzipped JSON" if path.suffix == ".gz" else "JSON"
        raise ValueError(f"{path} must be {kind}, but {error}; get it again") from error


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON atomically: the file is the old one or the new one, whatever happens."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
