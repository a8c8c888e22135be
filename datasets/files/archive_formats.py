"""Zip and tar archives, each member read to its end, and to a checksum where the format has one.

- Tar, plain or compressed by gzip, bzip2 or xz, is read block by block: Python's own reader takes a
  damaged header for the end of the archive, does not read the checksum at the end of a compressed
  one, and reads whatever an extended header declares into memory.
- Zip is read by Python's reader, and the two places that describe a member are compared.
"""

import bz2
import lzma
import stat
import struct
import tarfile
import zipfile
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
"""The first bytes of compressed archives, and their decompressors."""
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
Entry = tuple[str, int | None, Iterator[bytes]]
"""A member's name, its size (None for a folder) and its content."""
KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LOCAL = struct.Struct("<4s2xHH4xIIIHH")  # before a member: flags, method, CRC, sizes, lengths
END = struct.Struct("<4s4xHHIIH")  # the end of the archive
ENCRYPTED, LATER, UTF8 = 1, 8, 2048  # flags; LATER: sizes and CRC follow the content
MANY = 0xFFFF  # then the number is in another place


class Broken(Exception):
    """A fault of an archive; its text completes "it cannot be unpacked: ..."."""


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


def is_zip(file: BinaryIO) -> bool:
    """Says whether a file begins and ends as a zip archive."""
    return file.read(4) in (b"PK\3\4", b"PK\5\6") and zipfile.is_zipfile(file)


def read_zip(file: BinaryIO, limit: int) -> Iterator[Entry]:
    """Yields the members, once what is declared of all of them is possible."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_end(file, len(members), archive.comment)
        total = sum(member.file_size for member in members)
        if total > limit:
            raise Broken(f"it unpacks to {total:,} bytes, {limit:,} are the most")
        _check_places(file, members, archive.start_dir)
        for member in members:
            folder = member.filename.endswith("/")
            if folder and member.file_size:
                raise Broken(f"the folder {shown(member.filename)} has content")
            yield (
                member.filename,
                None if folder else member.file_size,
                _read_member(archive, member),
            )


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    with archive.open(member) as content:
        while chunk := content.read(CHUNK):
            yield chunk


def _check_end(file: BinaryIO, count: int, comment: bytes) -> None:
    """Raises `Broken` unless the end of the archive is the end of the file, and counts right."""
    start = file.seek(0, 2) - END.size - len(comment)
    file.seek(start)
    magic, here, in_all, *_, length = END.unpack(file.read(END.size))
    if magic != b"PK\5\6" or length != len(comment):
        raise Broken("something follows its end")
    if MANY not in (here, in_all) and (here, in_all) != (count, count):
        raise Broken(f"it is said to have {in_all} members, and has {count}")


def _check_places(file: BinaryIO, members: list[zipfile.ZipInfo], end: int) -> None:
    """Raises `Broken` unless members lie one after the other, each as it is described twice."""
    stop = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.create_system == 3 and kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Broken(
                f"it must hold files and folders only, but {shown(member.filename)} is a link or "
                "device"
            )
        if member.flag_bits & ENCRYPTED or member.compress_type not in KNOWN:
            raise Broken(f"{shown(member.filename)} is encrypted, or compressed in an unknown way")
        if member.header_offset < stop:
            raise Broken(f"{shown(member.filename)} overlaps with another member")
        stop = _check_local(file, member) + member.compress_size
    if stop > end:
        raise Broken("its members reach into its list of them")


def _check_local(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Returns where a member's content begins, once its own header says what the list says."""
    file.seek(member.header_offset)
    _, flags, method, crc, packed, size, name, extra = LOCAL.unpack(file.read(LOCAL.size))
    same = not (flags ^ member.flag_bits) & (ENCRYPTED | UTF8) and method == member.compress_type
    if not flags & LATER and MANY << 16 | MANY not in (packed, size):
        sizes = (member.CRC, member.compress_size, member.file_size)
        same = same and (crc, packed, size) == sizes
    if not same:
        raise Broken(f"{shown(member.filename)} is described in two ways that differ")
    return member.header_offset + LOCAL.size + name + extra
