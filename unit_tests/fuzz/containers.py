"""Whole files of other contents: `mutate_file` opens a file by its name's ending, and writes it."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from random import Random

import h5py
import numpy as np

from .structure import DEEP, ODD, mutate_array, mutate_tree

CELLS = (
    "",
    " ",
    "nan",
    "inf",
    "1e39",
    "1e400",
    "-1",
    "1_0",
    "١٢",
    "0x10",
    "1,5",
    "4",
    "\ud83d",
    "#",
)
ATTRIBUTES = (
    "",
    "x" * 5000,
    "nan",
    "\x1b[31m",
    1,
    1.5,
    [1, 2],
    b"\xff",
    "[1, 2]",
    '{"train": -1}',
    "{}",
)
MEMBERS = (
    "../x",
    "/x",
    "C:x",
    "a/../../x",
    "dataset/../x",
    "x" * 300,
    "a\x1b[31m",
    "dataset",
    "..",
)


def mutate_file(rng: Random, name: str, content: bytes) -> tuple[bytes, str] | None:
    """Returns a whole file and what is other in it; None if nothing is known of its kind."""
    found = next((kind for kind in KINDS if name.endswith(kind)), None)
    return None if found is None else KINDS[found](rng, content)


def _json(rng: Random, content: bytes) -> tuple[bytes, str]:
    tree, name = mutate_tree(rng, json.loads(content), plain=True)
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.9, default=str)
    text = text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)
    return text.encode("utf-8", "surrogatepass"), name


def _json_gz(rng: Random, content: bytes) -> tuple[bytes, str]:
    if rng.random() < 0.05:
        return content + content, "two members"
    changed, name = _json(rng, gzip.decompress(content))
    return gzip.compress(changed, mtime=0), name


def _pickle(rng: Random, content: bytes) -> tuple[bytes, str]:
    protocol = content[1] if content[:1] == b"\x80" else 2
    tree, name = mutate_tree(rng, pickle.loads(content))
    return pickle.dumps(tree, protocol), name


def _npz(rng: Random, content: bytes) -> tuple[bytes, str]:
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    tree, name = mutate_tree(rng, arrays)
    tree = tree if isinstance(tree, dict) else {"x": tree}
    written = io.BytesIO()
    known = {key.replace("\0", "").replace("\ud83d", "") or "x": tree[key] for key in tree}
    np.savez(written, **{key: _array(value) for key, value in known.items()})
    return written.getvalue(), name


def _array(value: object) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:  # lists of different lengths
        return np.array(None)


def _table(rng: Random, content: bytes) -> tuple[bytes, str]:
    mark = "\t" if b"\t" in content else ","
    lines = [line.split(mark) for line in content.decode().splitlines()]
    name = rng.choice(("cell", "cell", "cell", "index", "header", "line", "cells", "mark", "order"))
    row = rng.randrange(len(lines))
    column = rng.randrange(len(lines[row]))
    if name == "cell":
        lines[row][column] = rng.choice((*CELLS, lines[row][column] + "0"))
    elif name == "index":
        lines = [[str(number), *line] for number, line in enumerate(lines, rng.choice((0, 1)))]
    elif name == "header":
        lines.insert(0, [str(number) for number in range(len(lines[0]))])
    elif name == "line":
        lines[row : row + 1] = rng.choice(([], [lines[row], lines[row]], [[""], lines[row]]))
    elif name == "cells":
        del lines[row][column]
    elif name == "mark":
        mark = rng.choice((";", " ", "\t", ", "))
    else:
        rng.shuffle(lines)
    end = rng.choice(("\n", "\n", "\r\n", "\r"))
    return end.join(map(mark.join, lines)).encode("utf-8", "surrogatepass"), name


def _hdf5(rng: Random, content: bytes) -> tuple[bytes, str]:
    written = io.BytesIO(content)
    with h5py.File(written, "r+") as file:
        name = rng.choice(sorted(file))
        if file.attrs and rng.random() < 0.2:
            key = rng.choice(sorted(file.attrs))
            done = f"attribute {key}"
            file.attrs[key] = rng.choice(ATTRIBUTES)
        else:
            done = f"{name} {_change_dataset(rng, file, name)}"
    return written.getvalue(), done


def _change_dataset(rng: Random, file: h5py.File, name: str) -> str:
    array = file[name][()]
    attributes = dict(file[name].attrs)
    done = rng.choice(("array", "array", "array", "array", "unwritten", "chunked", "links", "huge"))
    del file[name]
    if done == "array":
        other, what = mutate_array(rng, array)
        if other.dtype.kind in "OU":
            other = np.array(
                [str(entry).encode("utf-8", "replace") for entry in other.flat] or [b""]
            )
        file[name] = other
        done = what
    elif done == "unwritten":
        file.create_dataset(name, array.shape, array.dtype, chunks=rng.choice((None, True)))
    elif done == "chunked":
        file.create_dataset(name, data=array, chunks=(1, *array.shape[1:]), compression=1)
    elif done == "links":
        links = (h5py.ExternalLink("/etc/passwd", name), h5py.SoftLink("/nowhere"))
        file[name] = rng.choice((*links, h5py.SoftLink(f"/{name}")))
    else:
        shape = (10 ** rng.choice((6, 9, 12)), *array.shape[1:])
        file.create_dataset(name, shape, array.dtype, chunks=(1024, *array.shape[1:]))
    if done != "links":
        file[name].attrs.update(attributes)
    return done


def _zip(rng: Random, content: bytes) -> tuple[bytes, str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    members, name = _members(rng, members)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", rng.choice((0, 8, 12, 14))) as archive:
        for member, data in members:
            info = zipfile.ZipInfo(member)
            if name == "link":
                info.external_attr = 0o120777 << 16
            archive.writestr(info, data, compress_type=archive.compression)
    return written.getvalue(), name


def _tar(rng: Random, content: bytes) -> tuple[bytes, str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive]
    members, name = _members(rng, members)
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            if name == "link":
                info.type, info.linkname = rng.choice((b"1", b"2", b"6", b"3")), "/etc/passwd"
                info.size, data = 0, b""
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(written.getvalue(), mtime=0), name


def _members(rng: Random, members: list[tuple[str, bytes]]) -> tuple[list[tuple[str, bytes]], str]:
    name = rng.choice(("name", "gone", "twice", "link", "folder"))
    place = rng.randrange(len(members))
    if name == "name":
        members[place] = (rng.choice(MEMBERS), members[place][1])
    elif name == "gone":
        del members[place]
    elif name == "twice":
        members.append(
            (members[place][0].swapcase() if rng.random() < 0.3 else members[place][0], b"x")
        )
    elif name == "folder":
        members = [(f"top/{member}", data) for member, data in members]
    return members, name


def _lines(rng: Random, content: bytes) -> tuple[bytes, str]:
    lines = content.decode().split("\n")
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    name = rng.choice(("gone", "twice", "swapped", "word"))
    if name == "gone":
        del lines[place]
    elif name == "twice":
        lines.insert(place, lines[other])
    elif name == "swapped":
        lines[place], lines[other] = lines[other], lines[place]
    else:
        lines[place] = str(rng.choice(ODD))[:6000]
    return "\n".join(lines).encode("utf-8", "surrogatepass"), f"line {name}"


KINDS: dict[str, Callable[[Random, bytes], tuple[bytes, str]]] = {
    ".json": _json,
    ".json.gz": _json_gz,
    ".pkl": _pickle,
    ".npz": _npz,
    ".csv": _table,
    ".tsv": _table,
    ".hdf5": _hdf5,
    ".zip": _zip,
    ".tar.gz": _tar,
    ".txt": _lines,
}
"""The end of a name -> what changes such a file."""
