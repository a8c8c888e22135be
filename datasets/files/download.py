"""Files from the network: resumed, checked, and in their place whole or not at all.

A file is written beside its place as `.part`, from which a later call resumes, and gets its name
once it is what was expected. One that is not is kept aside as `.rejected`, to be looked at.
"""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

CHUNK = 1 << 18  # bytes read at once
TIMEOUT = 60  # seconds without an answer


@dataclass(frozen=True)
class Expected:
    """What a file must be; what is None is not known, and not checked.

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


def git_blob_id(path: Path) -> str:
    """Returns what `git hash-object` prints: SHA-1 of "blob <size>", a zero byte, the content."""
    header = b"blob %d\0" % path.stat().st_size
    return _digest(path, hashlib.sha1(header, usedforsecurity=False))


def verify(path: str | Path, expected: Expected) -> Path:
    """Returns the path of a file that is there and is the expected one.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is another file; it is left alone.
    """
    path = Path(path)
    if problem := expected.find_problem(path):
        raise ValueError(
            f"{path} is there, but is not the published file: {problem}; it was left alone: "
            "move it away, or choose another folder, and run this again"
        )
    return path


def fetch(
    url: str, path: str | Path, *, expected: Expected | None = None, progress: bool = True
) -> Path:
    """Downloads a file, unless it is there already, and returns its path.

    Args:
        url: its address.
        path: its place; missing folders are made.
        expected: what it must be, whether it is fetched or there already.
        progress: whether to show a bar.

    Raises:
        ConnectionError: if it could not be fetched, or not to its end; what came is kept for the
            next call to resume.
        ValueError: if another file came (it is kept aside, named `<name>.rejected`, in place of
            an older one), or is there already (it is left alone).
    """
    path, expected = Path(path), expected or Expected()
    if path.exists():
        return verify(path, expected)
    part, rejected = (path.with_name(path.name + end) for end in (".part", ".rejected"))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _complete(part, url, expected.size, progress)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: not an address
        known = f" ({expected})" if str(expected) else ""
        raise ConnectionError(
            f"could not download {url}: {error}. Run this again to resume; or give the address "
            f"of a mirror; or fetch {path.name}{known} by hand and save it as {path}"
        ) from error
    if problem := expected.find_problem(part):
        os.replace(part, rejected)
        raise ValueError(
            f"{url} did not give the expected file: {problem}; what came is kept aside as "
            f"{rejected}. Run this again to fetch it afresh; if it stays so, the published file "
            "has changed: look at the address"
        )
    os.replace(part, path)
    return path


def _digest(path: Path, digest) -> str:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _complete(part: Path, url: str, size: int | None, progress: bool) -> None:
    """Completes the file `part`, from its end on if the server can, else from the start."""
    start = part.stat().st_size if part.exists() else 0
    if start and start == size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not start:  # range not satisfiable: nothing lies beyond its end
            raise
        if error.headers["Content-Range"] != f"bytes */{start}":  # else it is complete
            part.unlink()
            _complete(part, url, size, progress)
        return
    with response:
        if response.status != 206:  # the whole file comes, whatever was asked for
            start = 0
        elif not str(response.headers["Content-Range"]).startswith(f"bytes {start}-"):
            sent = response.headers["Content-Range"]
            raise ConnectionError(f"asked for what follows byte {start}, the server sent {sent}")
        length = response.headers["Content-Length"]
        _save(response, part, start, size if length is None else start + int(length), progress)


def _save(response, part: Path, start: int, total: int | None, progress: bool) -> None:
    bar = tqdm(
        total=total,
        initial=start,
        desc=part.stem,
        unit="B",
        unit_scale=True,
        disable=not progress,
    )
    with bar, part.open("r+b" if start else "wb") as file:
        file.seek(start)
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
        if total is not None and file.tell() < total:
            raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")
