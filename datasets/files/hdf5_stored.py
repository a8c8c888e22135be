"""Values as HDF5 files store them: chunks and texts, read within bounds, and sums of our rows.

- Chunks are decoded here: HDF5's own decoding knows no bound, and crashes. A chunk that was
  compressed is a few bytes that may expand to gigabytes. HDF5 expands them all, whatever the
  dataset declares; here a chunk ends where it is declared to end.
- The place of a text of any length is a reference to a heap, a block of the file; many references
  may name the same text, and HDF5 hangs on some damaged heaps. So lengths are added up before
  texts are read, and a heap is looked through before HDF5 sees it.
- Files that we write carry checksums: a dataset `features` of n rows has (n,) uint32 CRC-32 beside
  it, as `row_crc32/features`.
"""

import io
import itertools
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

DEFLATE, SHUFFLE, FLETCHER32, LZF = 1, 2, 3, 32000  # HDF5's numbers of its filters
LARGEST = 1 << 28  # bytes of a chunk
LARGEST_FOREIGN = 1 << 24  # bytes of one that HDF5 decodes (lzf expands 88-fold at most)
REFERENCE = np.dtype([("length", "<u4"), ("place", "V12")])  # of a text of any length
HEAP = b"GCOL"  # the first bytes of a heap
HEADER = 16  # bytes before the first object of a heap, and before an object's content
GROUP = "row_crc32"
BLOCK = 1 << 24  # bytes that are summed at once


def lies_as_numpy(dataset: h5py.Dataset) -> bool:
    """Says whether values lie in the file, bit by bit, as NumPy has them."""
    return h5py.h5t.py_create(dataset.dtype, logical=True) == dataset.id.get_type()


def is_plain(dtype: np.dtype) -> bool:
    """Says whether values are texts or numbers, or records and blocks of them.

    A record may hold a reference (Fuel's does), which is not followed.
    """
    if dtype.fields:
        fields = [field[0] for field in dtype.fields.values()]
        return all(h5py.check_ref_dtype(field) or is_plain(field) for field in fields)
    if dtype.subdtype:
        return is_plain(dtype.subdtype[0])
    return dtype.kind in "iufcbSU" or h5py.check_string_dtype(dtype) is not None


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


def read_references(dataset: h5py.Dataset) -> np.ndarray:
    """Returns the references of texts that lie one after the other."""
    offset = dataset.id.get_offset()
    if offset is None:  # in the header itself: there are few
        return np.zeros(0, REFERENCE)
    with open(dataset.file.filename, "rb") as raw:
        raw.seek(offset)
        return np.frombuffer(raw.read(dataset.size * REFERENCE.itemsize), REFERENCE)


@contextmanager
def open_guarded(path: str | Path, *, largest: int) -> Iterator[h5py.File]:
    """Opens an HDF5 file whose heaps are looked through as they are read.

    Args:
        path: the file.
        largest: bytes of a heap.

    Raises:
        OSError: h5py's, in reading a heap that is damaged or larger.
    """
    with _Guarded(path, largest) as guarded, h5py.File(guarded, "r") as file:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise ValueError("its addresses and lengths must have 8 bytes")
        yield file


class _Guarded(io.FileIO):
    """A file of which h5py gets no heap that is damaged."""

    def __init__(self, path: str | Path, largest: int) -> None:
        super().__init__(path)
        self._largest = largest

    def readinto(self, buffer) -> int:
        start = self.tell()
        count = super().readinto(buffer)
        for found in re.finditer(HEAP, bytes(memoryview(buffer)[:count])):
            self._check(start + found.start())
        return count

    def _check(self, start: int) -> None:
        """Walks from object to object of a heap, as HDF5 does, which may walk in place for ever."""
        self.seek(start)
        head = self.read(HEADER)
        size = struct.unpack_from("<Q", head, 8)[0] if len(head) == HEADER else 0
        if not HEADER <= size <= self._largest:
            raise OSError(f"a heap of texts has {size:,} bytes")
        heap, place = head + self.read(size - HEADER), HEADER
        while place + HEADER <= len(heap):
            number, length = struct.unpack_from("<H6xQ", heap, place)
            step = HEADER + (length + 7) // 8 * 8 if number else length  # 0: the rest is free
            if step < HEADER or place + step > size:
                raise OSError(f"a heap of texts is damaged at {start + place:,}")
            place += step


def make_sums(file: h5py.File) -> None:
    """Makes room for the checksums of the datasets at a file's top that have rows of numbers."""
    items = [(name, item) for name, item in file.items() if isinstance(item, h5py.Dataset)]
    for name, item in items:
        if item.shape and item.size and not item.dtype.hasobject:
            file.create_dataset(f"{GROUP}/{name}", (len(item),), np.uint32)


def sum_items(file: h5py.File, total: int, start: int, stop: int) -> None:
    """Writes the checksums of the rows `start` to `stop - 1` of what has a row an item."""
    for name in file.get(GROUP, ()):
        if len(file[name]) == total:
            _sum(file, name, start, stop)


def sum_rest(file: h5py.File, total: int) -> None:
    """Writes the checksums of what has other rows."""
    for name in file.get(GROUP, ()):
        if len(file[name]) != total:
            _sum(file, name, 0, len(file[name]))


def _sum(file: h5py.File, name: str, start: int, stop: int) -> None:
    dataset = file[name]
    step = max(1, BLOCK * len(dataset) // dataset.nbytes)
    for first in range(start, stop, step):
        last = min(first + step, stop)
        file[f"{GROUP}/{name}"][first:last] = row_sums(dataset[first:last])


def row_sums(rows: np.ndarray) -> np.ndarray:
    """Returns the CRC-32 of every row, (rows,) uint32."""
    if not len(rows):
        return np.zeros(0, np.uint32)
    width = rows.nbytes // len(rows)
    content = memoryview(np.ascontiguousarray(rows).reshape(-1).view(np.uint8))
    sums = [zlib.crc32(content[at : at + width]) for at in range(0, rows.nbytes, width)]
    return np.array(sums, dtype=np.uint32)


def check_sums(
    path: str | Path, name: str, rows: np.ndarray, values: np.ndarray, sums: np.ndarray
) -> None:
    """Raises ValueError unless the values of some rows, as stored, have their checksums."""
    wrong = row_sums(values) != sums[rows]
    if wrong.any():
        raise ValueError(
            f"row {int(rows[wrong.argmax()])} of {name} in {path} is not what was written there: "
            "the file is damaged, or was changed; delete it, and make it again"
        )
