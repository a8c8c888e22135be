"""JSON files, plain or gzipped: read within bounds, written whole or not at all."""

import gzip
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from .reading import open_regular, shown
from .writing import replaced

LIMIT = 1 << 29  # bytes of text: VQA-v2's largest file has about 400 MB
CHUNK = 1 << 22
RATIO = 200  # of the text to what it is zipped to; VQA-v2's is 18, of zeros it is 1,000
DEPTH = 100  # of lists and objects in one another
NAMES = 1_000_000  # in one object
DIGITS = 4300  # of an integer: more take long to read and to print, and Python 3.11 refuses them
# What objects in memory take, for each of these bytes: an object, a list, a name and value in an
# object, half a text, an entry. VQA-v2's files make less than DENSITY of it for each byte of text.
COSTS = ((b"{", 232), (b"[", 88), (b":", 130), (b'"', 30), (b",", 100))
DENSITY, ROOM = 25, 1 << 25
INFINITY = float("inf")


def read_json(
    path: str | Path, *, hook: Callable[[dict], Any] | None = None, limit: int = LIMIT
) -> Any:
    """Reads JSON, unzipping what ends in .gz; `hook` replaces every object, innermost first.

    Taken is UTF-8, with or without a byte order mark. Lone halves of surrogate pairs, as the
    escape \\ud83d gives, are left in: see `datasets.files.reading.clean_text`.

    Args:
        path: the file.
        hook: called with every object's dict.
        limit: bytes of the text, unzipped. Besides, text may be zipped to no less than a 200th,
            and hold no more lists, objects, names and values than 25 times its size in memory,
            plus 32 MB; VQA-v2's files come to 21 times.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: names the file, if it is cut off or no JSON, goes on behind its end, is larger
            than the limits, more than 100 deep, gives a name twice in an object, or holds a
            number that is not finite or has more than 4,300 digits.
    """
    path = Path(path)
    zipped = path.suffix == ".gz"
    with open_regular(path, advice="check the path") as file:
        try:
            text = _read_text(file, zipped, limit)
            content = _parse(text, hook)
        except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, RecursionError) as error:
            kind = "gzipped JSON" if zipped else "JSON"
            problem = TOO_DEEP if isinstance(error, RecursionError) else error
            raise ValueError(f"{path} must be {kind}, but {problem}; get it again") from error
    return content


TOO_DEEP = f"it has lists or objects that are more than {DEPTH} deep"


def _read_text(file: BinaryIO, zipped: bool, limit: int) -> str:
    source = gzip.GzipFile(fileobj=file) if zipped else file
    content, cost = bytearray(), 0
    while chunk := source.read(CHUNK):  # gzip checks its trailer, and what follows, at the end
        content += chunk
        cost += sum(chunk.count(byte) * each for byte, each in COSTS)
        if len(content) > limit:
            raise ValueError(f"it has more than {limit:,} bytes of text, which are not read")
        if zipped and len(content) > RATIO * file.tell() + ROOM:
            raise ValueError("it was zipped to a tiny part of its size, as no real text is")
        if cost > DENSITY * len(content) + ROOM:
            raise ValueError("it holds far more lists, objects and values than its size allows")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 ({error.reason} at byte {error.start:,})") from error


def _parse(text: str, hook: Callable[[dict], Any] | None) -> Any:
    def make(pairs: list[tuple[str, Any]]) -> Any:
        if len(pairs) > NAMES:
            raise ValueError(f"an object in it has more than {NAMES:,} names")
        made = dict(pairs)
        if len(made) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"an object in it gives {shown(twice)} more than once")
        return made if hook is None else hook(made)

    limited = 0 < getattr(sys, "get_int_max_str_digits", int)() <= DIGITS
    content = json.loads(
        text,
        object_pairs_hook=make,
        parse_int=None if limited else _parse_int,
        parse_constant=_refuse_constant,
    )
    _check(content)
    return content


def _parse_int(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number in it has {len(text):,} digits")
    return int(text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} in it is no number of JSON's")


def _check(content: Any) -> None:
    """Refuses what lies too deep: Python's own bound differs from version to version.

    And what was too large for a number, as 1e999 is.
    """
    level = [[content]]
    for _ in range(DEPTH + 1):
        entries = [holder.values() if isinstance(holder, dict) else holder for holder in level]
        if any(INFINITY in few or -INFINITY in few for few in entries):
            raise ValueError("a number in it is too large")
        level = [entry for few in entries for entry in few if isinstance(entry, (list, dict))]
        if not level:
            return
    raise ValueError(TOO_DEEP)


def write_json(path: str | Path, value: Any) -> None:
    """Writes JSON atomically: the file is the old one or the new one, whatever happens.

    Lone halves of surrogate pairs are written as escapes, and come back as they were.

    Raises:
        ValueError: if a number is not finite, which JSON does not know.
        OSError: if the file cannot be written; what was there stays.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        content = text.encode("utf-8")
    except UnicodeEncodeError:
        content = json.dumps(value, allow_nan=False).encode("ascii")
    except ValueError as error:
        raise ValueError(f"what is written to {path} must be JSON, but {error}") from error
    with replaced(path) as file:
        file.write(content)
