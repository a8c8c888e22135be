"""Zip archives, each member read to its checksum, and the two places that describe it compared."""

import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from .archive_tar import CHUNK, Broken, Entry
from .reading import shown

KNOWN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LOCAL = struct.Struct("<4s2xHH4xIIIHH")  # before a member: flags, method, CRC, sizes, lengths
END = struct.Struct("<4s4xHHIIH")  # the end of the archive
ENCRYPTED, LATER, UTF8 = 1, 8, 2048  # flags; LATER: sizes and CRC follow the content
MANY = 0xFFFF  # then the number is in another place


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
            yield member.filename, None if folder else member.file_size, _read(archive, member)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
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
