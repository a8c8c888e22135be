"""Chunks of HDF5 datasets, decoded here: HDF5's own decoding knows no bound, and crashes.

A chunk that was compressed is a few bytes that may expand to gigabytes. HDF5 expands them all,
whatever the dataset declares; here a chunk ends where it is declared to end.
"""

import itertools
import math
import zlib
from collections.abc import Callable

import h5py
import numpy as np

from .hdf5_checks import lies_as_numpy

DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000  # HDF5's numbers of its filters
LARGEST = 1 << 28  # bytes of a chunk
LARGEST_FOREIGN = 1 << 24  # bytes of one that HDF5 decodes (lzf expands 88-fold at most)
REFERENCE = np.dtype([("length", "<u4"), ("place", "V12")])  # of a text of any length


def stored_dtype(dataset: h5py.Dataset) -> np.dtype | None:
    """Returns how values lie in the file; None if only HDF5 can make NumPy's of them."""
    if dataset.dtype.hasobject:
        return REFERENCE
    return dataset.dtype if lies_as_numpy(dataset) else None


def check_chunks(dataset: h5py.Dataset) -> None:
    """Raises ValueError if chunks are larger, or packed in other ways, than can be read safely."""
    filters = _find_filters(dataset)
    ours = _is_ours(dataset, filters)
    if not ours and any(code == DEFLATE for code, _ in filters):
        raise ValueError(
            "gzip may be combined with shuffle (of the numbers' own width) and fletcher32 only, "
            "each once; write it anew"
        )
    size, limit = chunk_bytes(dataset), LARGEST if ours else LARGEST_FOREIGN
    if size > limit:
        raise ValueError(
            f"a chunk {dataset.chunks} has {size:,} bytes, {limit:,} are the most; write it anew "
            "in smaller chunks"
        )


def chunk_bytes(dataset: h5py.Dataset) -> int:
    """Returns what a chunk takes in memory."""
    dtype = REFERENCE if dataset.dtype.hasobject else dataset.dtype
    return math.prod(dataset.chunks) * dtype.itemsize


def read_rows(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Returns rows in the order asked for; each chunk that holds some of them is read once.

    Texts of any length come as their references, `REFERENCE`.

    Raises:
        ValueError: and what h5py raises, if a chunk is damaged.
    """
    dtype = REFERENCE if dataset.dtype.hasobject else dataset.dtype
    found = np.empty((len(rows), *dataset.shape[1:]), dtype)
    shape, (height, *sides) = dataset.shape[1:], dataset.chunks
    order = np.argsort(rows, kind="stable")
    ends = np.flatnonzero(np.diff(rows[order] // height)) + 1
    read = _find_reader(dataset)
    for places in np.split(order, ends) if len(rows) else ():
        top = int(rows[places[0]]) // height * height
        for corner in itertools.product(*map(range, itertools.repeat(0), shape, sides)):
            kept = [min(side, end - at) for at, side, end in zip(corner, sides, shape, strict=True)]
            chunk = read((top, *corner))[(rows[places] - top, *map(slice, kept))]
            spans = [slice(at, at + wide) for at, wide in zip(corner, kept, strict=True)]
            found[(places, *spans)] = chunk
    return found


def _find_filters(dataset: h5py.Dataset) -> list[tuple[int, tuple[int, ...]]]:
    plist = dataset.id.get_create_plist()
    found = [plist.get_filter(number) for number in range(plist.get_nfilters())]
    return [(code, values) for code, _, values, _ in found]


def _is_ours(dataset: h5py.Dataset, filters: list[tuple[int, tuple[int, ...]]]) -> bool:
    codes = [code for code, _ in filters]
    known = {DEFLATE, SHUFFLE, FLETCHER32}.issuperset(codes) and len(set(codes)) == len(codes)
    dtype = stored_dtype(dataset)
    if dtype is None or not known:
        return False
    return all(code != SHUFFLE or values[:1] == (dtype.itemsize,) for code, values in filters)


def _find_reader(dataset: h5py.Dataset) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Returns what reads the chunk at a corner: from its bytes, or, if need be, by HDF5."""
    filters = _find_filters(dataset)
    ours, dtype, size = _is_ours(dataset, filters), stored_dtype(dataset), chunk_bytes(dataset)

    def read(corner: tuple[int, ...]) -> np.ndarray:
        stored = dataset.id.get_chunk_info_by_coord(corner).size
        if not 0 < stored <= size + size // 8 + 4096:  # HDF5 would crash, or take all memory
            raise ValueError(f"the chunk at {corner} cannot have {stored:,} bytes for {size:,}")
        if not filters and stored != size:  # HDF5 would leave the rest to chance
            raise ValueError(f"the chunk at {corner} must have {size:,} bytes, not {stored:,}")
        if not filters and dtype == REFERENCE:
            return _read_plain(dataset, corner)
        if filters and filters[-1][0] == LZF:
            _check_lzf(*dataset.id.read_direct_chunk(corner), len(filters), size)
        if not (ours and filters):  # `read_direct_chunk` overruns its buffer without a filter
            pairs = zip(corner, dataset.chunks, strict=True)
            return dataset[tuple(slice(at, at + side) for at, side in pairs)]
        skipped, raw = dataset.id.read_direct_chunk(corner)
        for number, (code, values) in reversed(list(enumerate(filters))):
            if not skipped >> number & 1:
                raw = _DECODERS[code](raw, values, size)
        if len(raw) != size:
            raise ValueError(f"the chunk at {corner} must have {size:,} bytes, not {len(raw):,}")
        return np.frombuffer(raw, dtype).reshape(dataset.chunks)

    return read


def _check_lzf(skipped: int, raw: bytes, filters: int, size: int) -> None:
    """Raises ValueError if lzf's data unpack to another length, which h5py fills up with anything.

    They have no checksum. This goes over them token by token: a megabyte takes about 0.1 s.
    """
    if skipped >> (filters - 1) & 1:
        return
    place = length = 0
    while place < len(raw):
        token = raw[place]
        if token < 32:  # so many bytes and one follow
            length += token + 1
            place += token + 2
        else:  # so many come again from before, and two
            longer = token >> 5 == 7 and place + 1 < len(raw)
            length += (token >> 5) + 2 + (raw[place + 1] if longer else 0)
            place += 3 if token >> 5 == 7 else 2
    if length != size:
        raise ValueError(f"its lzf data must unpack to {size:,} bytes, not {length:,}")


def _read_plain(dataset: h5py.Dataset, corner: tuple[int, ...]) -> np.ndarray:
    if dataset.file.userblock_size:  # HDF5's versions count from different places
        raise ValueError("texts in chunks cannot be read behind a user block; write it anew")
    with open(dataset.file.filename, "rb") as file:
        file.seek(dataset.id.get_chunk_info_by_coord(corner).byte_offset)
        raw = file.read(chunk_bytes(dataset))
    return np.frombuffer(raw, REFERENCE).reshape(dataset.chunks)


def _inflate(raw: bytes, values: tuple[int, ...], size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(raw, size + 5)  # a checksum may follow within
    except zlib.error as error:
        raise ValueError(f"its gzip data are damaged: {error}") from error
    if not stream.eof:
        raise ValueError("its gzip data are cut, or expand to more than the chunk")
    return content


def _unshuffle(raw: bytes, values: tuple[int, ...], size: int) -> bytes:
    width = values[0]
    count = len(raw) // width
    end = count * width
    planes = np.frombuffer(raw, np.uint8, end).reshape(width, count)
    return planes.T.tobytes() + raw[end:]


def _check_sum(raw: bytes, values: tuple[int, ...], size: int) -> bytes:
    """Takes Fletcher's checksum off, which HDF5 also accepts with its bytes exchanged."""
    content, stored = raw[:-4], int.from_bytes(raw[-4:], "little")
    words = np.frombuffer(content + b"\0" * (len(content) % 2), ">u2")
    first = second = 0
    for start in range(0, len(words), 1 << 20):
        block = words[start : start + (1 << 20)].astype(np.uint64)
        weights = np.arange(len(block), 0, -1, dtype=np.uint64)
        second += len(block) * first + int((block * weights).sum())
        first += int(block.sum())
    sums = [second % 65535, first % 65535]
    halves = [stored >> 16, stored & 65535]
    turned = [(half & 255) << 8 | half >> 8 for half in halves]
    if sums not in ([half % 65535 for half in halves], [half % 65535 for half in turned]):
        raise ValueError("its checksum (fletcher32) is another than the one stored")
    return content


_DECODERS = {DEFLATE: _inflate, SHUFFLE: _unshuffle, FLETCHER32: _check_sum}
