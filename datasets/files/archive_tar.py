"""Tar archives, plain or compressed by gzip, bzip2 or xz, read block by block to their end.

Python's own reader takes a damaged header for the end of the archive, does not read the checksum
at the end of a compressed one, and reads whatever an extended header declares into memory.
"""

import bz2
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from .reading import shown

BLOCK = 512  # bytes
CHUNK = 1 << 18  # bytes that are read at once
HEADER = 1 << 16  # bytes of an extended header, which holds a name
HEADERS = 8  # extended headers of a member
MEMORY = 1 << 28  # bytes that unpacking xz may take
PACKED: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(31),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY),
}
"""What compressed archives begin with, and what unpacks them."""
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
Entry = tuple[str, int | None, Iterator[bytes]]
"""A member's name, its size (None for a folder) and its content."""


class Broken(Exception):
    """What is wrong with an archive."""


def is_tar(file: BinaryIO) -> bool:
    """Says whether a file begins as a tar archive, or a compressed one."""
    block = _Stream(file, CHUNK).read(BLOCK)
    return block == bytes(BLOCK) or bool(_parse(block))


def read_tar(file: BinaryIO, limit: int) -> Iterator[Entry]:
    """Yields the members; is done once all was read, with the checksum of what is compressed.

    A plain tar archive has checksums of names and sizes only: CONTENTS ARE NOT PROTECTED.
    """
    stream = _Stream(file, 2 * limit + CHUNK)
    while (member := _read_header(stream)) is not None:
        if member.type not in (*FILES, tarfile.DIRTYPE):
            raise Broken(
                f"it must hold files and folders only, but {shown(member.name)} is a link or "
                "device, or has gaps"
            )
        folder = member.type == tarfile.DIRTYPE
        if member.size < 0 or (folder and member.size):
            raise Broken(f"{shown(member.name)} has {member.size:,} bytes")
        yield member.name, None if folder else member.size, stream.take(member.size)
        stream.read(-member.size % BLOCK)
    while block := stream.read(CHUNK):
        if block.strip(b"\0"):
            raise Broken("something follows its end")


class _Stream:
    """The blocks of an archive, unpacked."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        start = file.read(max(map(len, PACKED)))
        file.seek(0)
        magic = next((magic for magic in PACKED if start.startswith(magic)), None)
        self._chunks = iter(lambda: file.read(CHUNK), b"") if not magic else _unpack(file, magic)
        self._buffer, self._left, self._limit = b"", limit, limit

    def read(self, size: int) -> bytes:
        """Returns the next bytes; fewer at the end."""
        parts, lacking = [], size
        while lacking:
            if not self._buffer:
                self._buffer = next(self._chunks, b"")
                self._left -= len(self._buffer)
                if not self._buffer:
                    break
                if self._left < 0:
                    raise Broken(f"it unpacks to more than {self._limit:,} bytes")
            parts.append(self._buffer[:lacking])
            self._buffer = self._buffer[lacking:]
            lacking -= len(parts[-1])
        return b"".join(parts)

    def take(self, size: int) -> Iterator[bytes]:
        """Yields the next bytes; stops early at the end."""
        while size and (chunk := self.read(min(size, CHUNK))):
            size -= len(chunk)
            yield chunk


def _unpack(file: BinaryIO, magic: bytes) -> Iterator[bytes]:
    """Yields what was compressed, in one stream or several, to the last one's checksum."""
    data = b""
    while data := _skip_zeros(data, file):
        data += file.read(max(0, len(magic) - len(data)))
        if not data.startswith(magic):
            raise Broken("something follows the end of its compressed content")
        decoder = PACKED[magic]()
        while not decoder.eof:
            hungry = getattr(decoder, "needs_input", True)  # zlib's says what it left instead
            if hungry and not data:
                data = file.read(CHUNK)
            chunk = decoder.decompress(data, CHUNK)
            if hungry and not (data or chunk or decoder.eof):
                raise Broken("it is cut off")
            data = getattr(decoder, "unconsumed_tail", b"")
            if chunk:
                yield chunk
        data = decoder.unused_data


def _skip_zeros(data: bytes, file: BinaryIO) -> bytes:
    """Returns what follows padding, b"" at the end of the file."""
    while not (data := data.lstrip(b"\0")):
        if not (data := file.read(CHUNK)):
            break
    return data


def _read_header(stream: _Stream) -> tarfile.TarInfo | None:
    """Returns the next member, None at the end of the archive."""
    wanted: dict[str, str] = {}
    for _ in range(HEADERS):
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise Broken("it ends without an end-of-archive block: it is cut off")
        if block == bytes(BLOCK):
            return None
        member = _parse(block)
        if member.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
            found = _parse_pax(_read_extension(stream, member.size))
            if member.type != tarfile.XGLTYPE:
                wanted |= found
            elif {"path", "size"} & set(found):
                raise Broken("an extended header names all of its members alike")
        elif member.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            name = _read_extension(stream, member.size).rstrip(b"\0").decode()
            if member.type == tarfile.GNUTYPE_LONGNAME:
                wanted["path"] = name
        else:
            member.name = wanted.get("path", member.name)
            if any(key.startswith("GNU.sparse") for key in wanted):
                member.type = tarfile.GNUTYPE_SPARSE
            if "size" in wanted:
                member.size = _to_int(wanted["size"].encode())
            return member
    raise Broken(f"a member has more than {HEADERS} extended headers")


def _parse(block: bytes) -> tarfile.TarInfo:
    return tarfile.TarInfo.frombuf(block, "utf-8", "strict")


def _read_extension(stream: _Stream, size: int) -> bytes:
    if not 0 <= size <= HEADER:
        raise Broken(f"an extended header has {size:,} bytes, {HEADER:,} are the most")
    content = stream.read(size)
    stream.read(-size % BLOCK)
    return content


def _parse_pax(content: bytes) -> dict[str, str]:
    """Returns what an extended header says: records "LENGTH KEY=VALUE" and a new line."""
    found: dict[str, str] = {}
    while content:
        digits, _, _ = content.partition(b" ")
        length = _to_int(digits)
        record, content = content[len(digits) + 1 : length], content[length:]
        key, equals, value = record.decode().partition("=")
        if not equals or value[-1:] != "\n" or key in found:
            raise Broken("an extended header is damaged")
        found[key] = value[:-1]
    return found


def _to_int(digits: bytes) -> int:
    if not (digits.isdigit() and len(digits) < 20):
        raise Broken(f"an extended header has {shown(digits)} for a number")
    return int(digits)
