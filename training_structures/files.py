"""Files of our own: written whole or not at all, under a checksum that is checked on reading."""

import errno
import json
import os
import re
import struct
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from reprlib import Repr
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

LIMIT = 1 << 28  # bytes of a JSON file that are read into memory
OLD_LIMIT = 1 << 24  # of one without a checksum, which is read to tell its kind alone
BLOCK = 1 << 20  # bytes that are digested at once
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room: on the disk, for the user, in a file
SEAL = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n\}')  # the end of a JSON file of ours
COMMENT = re.compile(rb"sha256=([0-9a-f]{64})")  # a zip file's comment
COMMENT_BYTES = len("sha256=") + 64
END = struct.Struct("<4s4H2LH")  # a zip file's end record, before the comment
LOCATOR, LARGE_END = struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")  # of a large one, too
ENCRYPTED = 1  # a flag of an entry
COMMENT_LENGTH = struct.pack("<H", COMMENT_BYTES)  # as the zip format has it, before the comment


class CannotWrite(OSError):
    """A file could not be written; what was there before still is."""

    def __str__(self) -> str:
        if self.filename is None:
            return super().__str__()
        return f"could not write {self.filename}: {self.strerror}"


class Damaged(ValueError):
    """A file of ours does not hold what was written to it."""

    suffix = "damaged"  # what `set_aside` adds to its name


class Unsigned(Damaged):
    """A file has no checksum: another program's, or of before there were checksums.

    Attributes:
        content: what it says, of a JSON file.
    """

    suffix = "old"
    content: dict[str, Any] | None = None


def shown(value: Any) -> str:
    """Returns a foreign value as a message may repeat it: escaped, and not whole."""
    if isinstance(value, str):
        text = value[:80]
        text = text if text.isprintable() else ascii(text)[1:-1]
        return text if len(value) <= 80 else f"{text}..."
    brief = Repr()
    brief.maxlevel, brief.maxstring, brief.maxother = 4, 80, 80
    return brief.repr(value)


def save_atomically(path: str | Path, write: Callable[[BinaryIO], None]) -> None:
    """Calls `write` with an open file that becomes `path` once everything is on the disk.

    Until then, and if anything fails, what was at `path` stays. Missing folders are made, and
    what a process that is no more left half written of the same file is removed.

    Raises:
        CannotWrite: if the file could not be written.
    """
    path = Path(os.path.realpath(path))  # a link keeps pointing at what it points at
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        full = error.errno in FULL
        advice = "is the disk full? free space" if full else "see to permissions and names"
        text = f"{error.strerror or error}; {advice}"
        raise CannotWrite(error.errno, text, str(path)) from error
    except RuntimeError as error:  # torch's word for a write that failed
        raise CannotWrite(None, f"{error}; is the disk full?", str(path)) from error
    remove_leftovers(path.parent, path.name)


def _sync_folder(folder: Path) -> None:
    """Puts a folder's names on the disk, too, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some cannot
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes what killed processes of this machine left half written, of one file or of all."""
    own = ".+" if name is None else re.escape(name)
    pattern = re.compile(rf"\.{own}\.([1-9]\d{{0,8}})\.tmp")
    for found in filter(None, (pattern.fullmatch(entry) for entry in os.listdir(folder))):
        if not is_alive(int(found[1])):
            (folder / found[0]).unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Returns whether there is a process of this number on this machine, or may be one."""
    if os.name == "nt":  # there the question would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    try:  # in a container nobody may have asked how it ended
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(") ")[2][:1] not in ("Z", "X")


def set_aside(path: Path, suffix: str) -> Path:
    """Renames a file that is of no use, so that another can be written; returns the new name.

    Raises:
        CannotWrite: if it cannot be renamed.
    """
    number, aside = 1, path.with_name(f"{path.name}.{suffix}")
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.{suffix}{number}")
    try:
        path.rename(aside)
    except OSError as error:
        text = f"it cannot be renamed to {aside.name} ({error.strerror})"
        raise CannotWrite(error.errno, text, str(path)) from error
    return aside


def check_regular(path: Path) -> None:
    """Raises Damaged for a folder, a pipe or a device in a file's place."""
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe, a device or a link to nothing"
        raise Damaged(f"{path} must be a file, but is {kind}")


def sealed_json(content: dict[str, Any]) -> bytes:
    """Returns an object that is not empty as JSON; its last entry is the SHA-256 of all before."""
    return sealed(json.dumps(content, indent=1)[: -len("\n}")].encode())


def sealed(body: bytes) -> bytes:
    """Returns the JSON of an object, of which `body` is all but the end, with its SHA-256."""
    return body + f',\n "sha256": "{sha256(body).hexdigest()}"\n}}'.encode()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON with its checksum, whole or not at all."""
    write_bytes(path, sealed_json(content))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes bytes, whole or not at all."""
    save_atomically(path, lambda file: file.write(content))


def read_json(path: Path) -> dict[str, Any]:
    """Returns what `write_json` wrote, at most `LIMIT` bytes of it.

    Raises:
        FileNotFoundError: if nothing is there.
        Unsigned: for JSON without a checksum.
        Damaged: if it is not as it was written.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    check_regular(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > LIMIT:
            raise Damaged(f"{path} must have at most {LIMIT:,} bytes, but has more")
        content = file.read(size)  # more at once would take the memory of all that is allowed
    seal = SEAL.search(content, max(0, len(content) - 100))
    if seal is None or seal.end() != len(content):
        old = _parsed(content) if len(content) <= OLD_LIMIT else None
        if isinstance(old, dict) and "sha256" not in old:
            error = Unsigned(f"{path} has no checksum: it is of an earlier version")
            error.content = old
            raise error
        raise Damaged(f"{path} must end with its checksum, but does not")
    body = content[: seal.start()]
    if sha256(body).hexdigest().encode() != seal[1]:
        raise Damaged(f"{path} is not as it was written: its checksum differs")
    found = _parsed(body + b"}")
    if not isinstance(found, dict):
        raise Damaged(f"{path} must hold a JSON object, but does not")
    return found


def _parsed(content: bytes) -> Any:
    """Returns what JSON holds; None if it is none."""
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError):  # no UTF-8, no JSON, or nested too deep
        return None


class _Sealing:
    """A zip file in the making whose bytes are digested as they are written.

    The last two, the length of its comment, are held back: they are to say that there is one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.held = file, sha256(), b""
        self.failed: OSError | None = None

    def write(self, data: Any) -> int:
        data = memoryview(data).cast("B")
        if len(data) >= 2:
            self._put(self.held)
            self._put(data[:-2])
            self.held = bytes(data[-2:])
        else:
            last = self.held + bytes(data)
            self._put(last[:-2])
            self.held = last[-2:]
        return len(data)

    def flush(self) -> None:
        """Part of what torch calls; the file is flushed when it is complete."""

    def seal(self) -> None:
        """Ends the file with the SHA-256 of all that is before it, as the comment."""
        assert self.held == b"\0\0", "torch writes no comment"
        self._put(COMMENT_LENGTH)
        self._put(f"sha256={self.digest.hexdigest()}".encode())

    def _put(self, data: Any) -> None:
        self.digest.update(data)
        try:
            self.file.write(data)
        except OSError as error:  # torch would say something else
            self.failed = error
            raise


def write_zip(path: str | Path, write: Callable[[Any], None]) -> None:
    """Writes a zip file with its checksum, whole or not at all; `write` as `save_atomically`'s."""
    save_atomically(path, partial(_write_sealed, write))


def _write_sealed(write: Callable[[Any], None], file: BinaryIO) -> None:
    sealing = _Sealing(file)
    try:
        write(sealing)
    except RuntimeError as error:
        raise (sealing.failed or error) from error
    sealing.seal()


def check_zip(file: BinaryIO, path: str | Path) -> None:
    """Reads an open zip file once, in blocks, and leaves it at its start.

    Raises:
        Unsigned: for a file without our checksum.
        Damaged: if it is not as it was written, would unpack to more than it has, or has entries
            that torch and Python could take for others.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - COMMENT_BYTES - 2))
    end = file.read()
    seal = COMMENT.fullmatch(end[2:]) if end[:2] == COMMENT_LENGTH else None
    if seal is None:
        raise Unsigned(
            f"{path} is not a checkpoint of this library, or is cut short, or one of before there "
            "were checksums, which torch.load(path, weights_only=True) still reads"
        )
    digest, left = sha256(), size - COMMENT_BYTES
    file.seek(0)
    while left and (block := file.read(min(left, BLOCK))):
        digest.update(block)
        left -= len(block)
    if digest.hexdigest().encode() != seal[1]:
        raise Damaged(f"{path} is not as it was written: its checksum differs")
    try:
        entries = ZipFile(file).infolist()
    except (BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise Damaged(f"{path} must be a zip file ({shown(str(error))})") from error
    stored = all(
        e.compress_type == ZIP_STORED
        and e.compress_size == e.file_size
        and not e.flag_bits & ENCRYPTED
        for e in entries
    )
    if not stored or sum(e.file_size for e in entries) > size:
        raise Damaged(f"{path} must hold its entries as they are, but would unpack to more")
    names = {e.orig_filename.partition("/")[2].lower() for e in entries}  # as torch looks for them
    folders = {e.orig_filename.partition("/")[0] for e in entries}
    if len(names) < len(entries) or len(folders) > 1 or not _ends_plainly(file, size):
        raise Damaged(f"{path} must be read alike by all programs, but is a zip file of two minds")
    file.seek(0)


def _ends_plainly(file: BinaryIO, size: int) -> bool:
    """Returns whether a zip file with our comment has its list of entries right before its end
    record, or before the two for large files that torch writes, as they say themselves.

    Else Python and torch could find two different lists.
    """
    at = size - COMMENT_BYTES - END.size
    if at < LARGE_END.size + LOCATOR.size:
        return False
    file.seek(at - LOCATOR.size - LARGE_END.size)
    large = LARGE_END.unpack(file.read(LARGE_END.size))
    locator = LOCATOR.unpack(file.read(LOCATOR.size))
    signature, *_, length, offset, _ = END.unpack(file.read(END.size))
    if locator[0] == b"PK\6\7":
        at -= LOCATOR.size + LARGE_END.size
        if large[0] != b"PK\6\6" or locator[2] != at:
            return False
        if length not in (large[-2], 0xFFFFFFFF) or offset not in (large[-1], 0xFFFFFFFF):
            return False
        length, offset = large[-2:]
    return signature == b"PK\5\6" and offset + length == at


def read_member(file: BinaryIO, path: str | Path, name: str, limit: int) -> bytes:
    """Returns one entry, by its name inside the folder that all are in, of what `check_zip` has
    let through, and leaves the file at its start.

    Raises:
        Damaged: if it is not there, or has more than `limit` bytes.
    """
    try:
        with ZipFile(file) as archive:
            found = [e for e in archive.infolist() if e.orig_filename.partition("/")[2] == name]
            if len(found) != 1 or found[0].file_size > limit:
                raise Damaged(f"{path} must hold one {name} of at most {limit:,} bytes")
            content = archive.read(found[0])
    except (BadZipFile, EOFError, NotImplementedError, struct.error) as error:
        raise Damaged(f"{path} is damaged inside ({shown(str(error))})") from error
    file.seek(0)
    return content
