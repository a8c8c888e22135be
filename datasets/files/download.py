"""Files from the network: resumed, checked, and in their place whole or not at all.

A file is written beside its place as `.part`, from which a later call resumes, and gets its name
once it is what was expected. One that is not is kept aside as `.rejected`, to be looked at. Which
version of a file the part is of is noted as `.part.json`, so that two are never joined.

Addresses are https; plain http is taken of this machine alone (localhost), where nobody listens.
"""

import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from tqdm import tqdm

from .reading import check_file, read_text

CHUNK = 1 << 18  # bytes read at once
TIMEOUT = 60  # seconds without an answer
LIMIT = 1 << 36  # bytes of a file whose size is not known
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Expected:
    """A file's known properties; those that are None are not checked.

    Attributes:
        size: in bytes.
        git_blob_id: what `git hash-object FILE` prints, see `git_blob_id`.
        sha256: what `sha256sum FILE` prints.
        check: called with the path; raises ValueError or OSError if the file is no good.
    """

    size: int | None = None
    git_blob_id: str | None = None
    sha256: str | None = None
    check: Callable[[Path], object] | None = None

    def __str__(self) -> str:
        known = (
            self.size is not None and f"{self.size:,} bytes",
            self.git_blob_id and f"git blob id {self.git_blob_id}",
            self.sha256 and f"SHA-256 {self.sha256}",
        )
        return ", ".join(filter(None, known))

    @property
    def identifies(self) -> bool:
        """Whether a file put together from two versions would be found out."""
        return self.git_blob_id is not None or self.sha256 is not None

    def find_problem(self, path: Path) -> str | None:
        """Says why a file is not the expected one, or returns None."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size:,} bytes, not {self.size:,}"
        if self.git_blob_id is not None and (found := git_blob_id(path)) != self.git_blob_id:
            return f"its git blob id is {found}, not {self.git_blob_id}"
        if self.sha256 is not None and (found := _digest(path, hashlib.sha256())) != self.sha256:
            return f"its SHA-256 is {found}, not {self.sha256}"
        try:
            if self.check is not None:
                self.check(path)
        except (OSError, ValueError) as error:
            return str(error)
        return None


def make_folder(path: Path) -> None:
    """Makes a folder, and those it lies in, unless it is there.

    Raises:
        OSError: says of what folder it is, if that cannot be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file" if isinstance(error, FileExistsError) else error.strerror
        raise OSError(f"{path} must be a folder, but {reason}; choose another") from error


def git_blob_id(path: Path) -> str:
    """Returns what `git hash-object` prints: SHA-1 of "blob <size>", a zero byte, the content."""
    header = b"blob %d\0" % path.stat().st_size
    return _digest(path, hashlib.sha1(header, usedforsecurity=False))


def verify(path: str | Path, expected: Expected) -> Path:
    """Returns the path of a file that is there and is the expected one.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is another file, or no file at all; it is left alone.
    """
    path = check_file(path)
    if problem := expected.find_problem(path):
        raise ValueError(
            f"{path} is there, but is not the published file: {_plain(problem)}; it was left "
            "alone: move it away, or choose another folder, and run this again"
        )
    return path


class _WrongFile(Exception):
    """Another file than the expected one comes."""


class _Unwritable(Exception):
    """The disk is full, or does not let itself be written."""


def fetch(
    url: str,
    path: str | Path,
    *,
    expected: Expected | None = None,
    limit: int = LIMIT,
    progress: bool = True,
) -> Path:
    """Downloads a file, unless it is there already, and returns its path.

    A part is resumed if the server says that it is still of the same version, or if a digest is
    expected, which tells; else the file is fetched from its start.

    Args:
        url: its address: https, or http on this machine.
        path: its place; missing folders are made.
        expected: what it must be, whether it is fetched or there already.
        limit: bytes it may have; an expected size is the bound where there is one.
        progress: whether to show a bar.

    Raises:
        ConnectionError: if it could not be fetched, or not to its end; what came is kept for the
            next call to resume.
        OSError: if the disk is full; what came is kept too.
        ValueError: if another file came (it is kept aside, named `<name>.rejected`, in place of
            an older one; of one that is too large at most what was expected), or is there already
            (it is left alone); or if a symbolic link is in the place of the part.
    """
    path, expected = Path(path), expected or Expected()
    if path.exists():
        return verify(path, expected)
    part = _Part(path)
    try:
        _complete(part, url, expected, limit, progress)
        problem = expected.find_problem(part.path)
    except _WrongFile as error:
        problem = str(error)
    except _Unwritable as error:
        raise OSError(
            f"{part.path} could not be written: {error}. What came is kept: make room, or choose "
            "another folder, and run this again to resume"
        ) from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: not an address
        known = f" ({expected})" if str(expected) else ""
        raise ConnectionError(
            f"could not download {url}: {_plain(str(error))}. Run this again to resume; or give "
            f"the address of a mirror; or fetch {path.name}{known} by hand and save it as {path}"
        ) from error
    if problem:
        kept = part.reject()
        raise ValueError(
            f"{url} did not give the expected file: {_plain(problem)}; {kept}. Run this again to "
            "fetch it afresh; if it stays so, the published file has changed: look at the address"
        )
    part.finish()
    return path


class _Part:
    """The part of a file that is there so far, with a note of the version it is of.

    Raises:
        ValueError: if its place, or the note's, is taken by a link, a folder or a pipe.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path, self.note, self.rejected = (
            place.with_name(place.name + end) for end in (".part", ".part.json", ".rejected")
        )
        make_folder(place.parent)
        for path in (self.path, self.note):
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise ValueError(
                    f"{path} must be a file of an earlier download, or not be there, but is a "
                    "link, a folder or a pipe, which is not written to; move it away"
                )

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def open(self, start: int) -> BinaryIO:
        """Opens it to be written from byte `start` on; not through a link, if one comes now."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(self.path, flags, 0o666), "r+b", buffering=0)
        file.truncate(start)
        file.seek(start)
        return file

    def read_version(self, url: str) -> str | None:
        """Returns what the server called the version of which the part is, None if unknown."""
        try:
            noted = json.loads(read_text(self.note, limit=1 << 16))
            version = noted["version"] if noted["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None  # there is none, or it is damaged: then the part counts for little
        return version if isinstance(version, str) and version.isprintable() else None

    def write_version(self, url: str, version: str | None) -> None:
        self.note.unlink(missing_ok=True)
        if version is not None:
            with self.note.open("x", encoding="utf-8") as file:
                json.dump({"url": url, "version": version}, file)

    def discard(self) -> None:
        for path in (self.path, self.note):
            path.unlink(missing_ok=True)

    def reject(self) -> str:
        """Keeps aside what came, and says so."""
        self.note.unlink(missing_ok=True)
        if not self.path.exists():
            return "nothing of it was kept"
        os.replace(self.path, self.rejected)
        return f"what came is kept aside as {self.rejected}"

    def finish(self) -> None:
        os.replace(self.path, self.place)
        self.note.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows where a server sends to by the same protocol."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            raise ValueError(f"it sends to another protocol, {newurl}")
        _check_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req, fp, code, msg, headers):
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:  # also of what is no address
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
        raise ValueError(
            "the address must begin with https:// (what comes otherwise, anyone on the way may "
            f"have changed), got {url}"
        )


def _plain(text: str) -> str:
    """Returns a text, which may come from the server, without what a terminal would obey."""
    text = text if len(text) <= 1000 else f"{text[:1000]}..."
    return text if text.isprintable() else ascii(text)[1:-1]


def _digest(path: Path, digest) -> str:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _complete(part: _Part, url: str, expected: Expected, limit: int, progress: bool) -> None:
    """Completes the part, from its end on if that is safe and the server can, else anew."""
    _check_address(url)
    start, version = part.size, part.read_version(url)
    limit = limit if expected.size is None else expected.size
    if start > limit or (version is None and not expected.identifies):
        start = 0
    if start and start == expected.size and expected.identifies:
        return
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
    opener = urllib.request.build_opener(_Redirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not start:  # range not satisfiable: nothing lies beyond its end
            raise
        if error.headers["Content-Range"] != f"bytes */{start}":  # else it is complete
            part.discard()
            _complete(part, url, expected, limit, progress)
        return
    with response:
        sent = _find_version(response.headers)
        if response.status == 206 and start and version and sent not in (None, version):
            part.discard()  # it asks for no If-Range, and would have joined two versions
            return _complete(part, url, expected, limit, progress)
        start, total = _check_answer(response, start, limit)
        with part.open(start) as file:
            if not start:
                part.write_version(url, sent)
            _save(response, part, file, total, limit, progress)
            if (lacking := expected.size if total is None else total) is not None:
                if file.tell() < lacking:
                    raise ConnectionError(
                        f"the connection ended after {file.tell()} of {lacking} bytes"
                    )


def _find_version(headers: Mapping[str, str]) -> str | None:
    """Returns the strong ETag, or else the date, by which a server knows a version again."""
    tag = headers.get("ETag")
    return tag if tag and tag.startswith('"') else headers.get("Last-Modified")


def _check_answer(response, start: int, limit: int) -> tuple[int, int | None]:
    """Returns from which byte on the file comes, and how many it has, None if that is not said."""
    if response.status not in (200, 206):
        raise ConnectionError(f"the server answered with status {response.status}")
    if (packed := response.headers["Content-Encoding"]) not in (None, "", "identity"):
        raise ConnectionError(f"the server sent it packed ({packed}), which was not asked for")
    if response.status == 200:  # the whole file comes, whatever was asked for
        start = 0
    elif not str(response.headers["Content-Range"]).startswith(f"bytes {start}-"):
        sent = response.headers["Content-Range"]
        raise ConnectionError(f"asked for what follows byte {start}, the server sent {sent}")
    total = None if response.length is None else start + response.length
    if total is not None and total > limit:
        raise _WrongFile(f"it has more than {limit:,} bytes")
    return start, total


def _save(
    response, part: _Part, file: BinaryIO, total: int | None, limit: int, progress: bool
) -> None:
    """Writes what comes, from where the file stands on."""
    start, free = file.tell(), shutil.disk_usage(part.place.parent).free
    if total is not None and total - start > free:
        raise _Unwritable(f"it needs {total - start:,} bytes, the disk has {free:,}")
    options = {"unit": "B", "unit_scale": True, "disable": not progress}
    with tqdm(total=total, initial=start, desc=part.place.name, **options) as bar:
        while chunk := response.read(CHUNK):
            if file.tell() + len(chunk) > limit:
                raise _WrongFile(f"it has more than {limit:,} bytes")
            _write(file, chunk)
            bar.update(len(chunk))
    _write(file, b"")


def _write(file: BinaryIO, chunk: bytes) -> None:
    """Writes a chunk; an empty one sees to it that all is on the disk."""
    left = memoryview(chunk)
    try:
        while left:
            left = left[file.write(left) :]
        if not chunk:
            os.fsync(file.fileno())
    except OSError as error:
        raise _Unwritable(error.strerror or str(error)) from error
