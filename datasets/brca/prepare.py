"""Downloads BRCA or ROSMAP: ``python -m datasets.brca.prepare --data-dir DIR``.

The files are those of MOGONET (Wang et al., 2021). Each is written beside its place as `.part`,
from which a later run resumes, checked, and only then given its name. BRCA's files are checked
against their git blob ids, the SHA-1 that `git hash-object FILE` prints. For ROSMAP's no ids are
known here: they are only checked to parse.
"""

import argparse
import hashlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from .get_data import read_table

SOURCE = "https://raw.githubusercontent.com/txWang/MOGONET/main"
BRCA = {
    "1_tr.csv": "f9592a73980ecb37f332b7a6d9b57b5a99078090",
    "1_te.csv": "d34625f7875308260b4b83b584c5b8eeffd621da",
    "2_tr.csv": "c58c38acd33f14dd99295c6eb629cc56885af98e",
    "2_te.csv": "ac5dd437b58659090eb6934e7e3a4a9a52a4a553",
    "3_tr.csv": "08e7b9a8c490892df01a474973c3e53efc76beb7",
    "3_te.csv": "7f8a67831896b6302f446dca88f0aeac71103635",
    "labels_tr.csv": "500c4965cfb07b192ddee944a022d02e2481ef30",
    "labels_te.csv": "44fd92df634fa828e26c9a6766af640987a294ae",
    "1_featname.csv": "060ea7ba5f0d82eab6dde8ec5c29ba010aa841f5",
    "2_featname.csv": "08fd266a1de90339d08e5afc2672a44ba0f98e04",
    "3_featname.csv": "291dd56ba3c6c2dc7cdd74bded4e457fe15bf290",
}
FILES: dict[str, dict[str, str | None]] = {"BRCA": {**BRCA}, "ROSMAP": dict.fromkeys(BRCA)}
"""The files of a set, each with its git blob id, or None where it is not known."""

CHUNK = 1 << 18  # bytes read at once
TIMEOUT = 60  # seconds without an answer


def download(
    data_dir: str | Path,
    *,
    name: str = "BRCA",
    base_url: str | None = None,
    files: Mapping[str, str | None] | None = None,
    progress: bool = True,
) -> list[Path]:
    """Downloads a set's files; what is there and passes its check is not fetched again.

    Args:
        data_dir: folder to put them in, made if need be.
        name: "BRCA" or "ROSMAP".
        base_url: address of the folder that holds the files; None takes MOGONET's.
        files: file names with their git blob ids (None: not known); None takes those of `name`.
        progress: whether to show a bar for each file.

    Returns:
        The paths of the files, all of which passed their check.

    Raises:
        ConnectionError: if a file could not be fetched, or not to its end; what came is kept for
            the next run to resume.
        ValueError: if `name` is unknown, a file came that is not the expected one (it is
            removed), or another file has the place of an expected one (it is left alone).
    """
    if name not in FILES:
        raise ValueError(f"unknown set {name!r}; choose from {sorted(FILES)}")
    base_url = base_url or f"{SOURCE}/{name}"
    folder = Path(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for file, blob_id in (FILES[name] if files is None else files).items():
        path, url = folder / file, f"{base_url.rstrip('/')}/{file}"
        if not path.exists():
            _download_file(url, path, blob_id, progress)
        elif problem := _find_problem(path, blob_id):
            raise ValueError(
                f"{path} is there, but is not the published file: {problem}; it was left alone: "
                "move it away, or choose another folder, and run this again"
            )
        paths.append(path)
    return paths


def git_blob_id(path: Path) -> str:
    """Returns what `git hash-object` prints: SHA-1 of "blob <size>", a zero byte, the content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _download_file(url: str, path: Path, blob_id: str | None, progress: bool) -> None:
    part = path.with_name(path.name + ".part")
    try:
        _fetch(url, part, progress)
    except (OSError, HTTPException) as error:
        expected = f" (git blob id {blob_id})" if blob_id else ""
        raise ConnectionError(
            f"could not download {url}: {error}. Run this again to resume; or give the address "
            f"of a mirror; or fetch {path.name}{expected} by hand and save it as {path}"
        ) from error
    if problem := _find_problem(part, blob_id):
        part.unlink()
        raise ValueError(
            f"{url} did not give the expected file: {problem}; it was removed. Run this again to "
            "fetch it afresh; if it stays so, the published file has changed: look at the address"
        )
    os.replace(part, path)


def _fetch(url: str, part: Path, progress: bool) -> None:
    """Completes the file `part`, from its end on if the server can, else from the start."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:  # range not satisfiable: nothing lies beyond the end of `part`
            raise
        part.unlink()
        return _fetch(url, part, progress)
    with response:
        if response.status != 206:  # the whole file comes, whatever was asked for
            start = 0
        _save(response, part, start, progress)


def _save(response, part: Path, start: int, progress: bool) -> None:
    length = response.headers["Content-Length"]
    total = None if length is None else start + int(length)
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


def _find_problem(path: Path, blob_id: str | None) -> str | None:
    """Says why a file is not the expected one, or returns None."""
    if blob_id is not None:
        found = git_blob_id(path)
        return None if found == blob_id else f"its git blob id is {found}, not {blob_id}"
    if path.name.endswith("_featname.csv"):  # names, a line each
        return None if path.stat().st_size else "it is empty"
    try:
        read_table(path)
    except ValueError as error:
        return str(error)
    return None


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a failure ends it with its message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m datasets.brca.prepare",
        description="Downloads MOGONET's BRCA (about 55 MB) or ROSMAP into a folder, from "
        f"{SOURCE}/NAME , checks the files, and resumes where an earlier run was cut off. Files "
        "that are there already are checked, not fetched again.",
        epilog="Then, in Python: "
        "from datasets.brca.get_data import get_dataloader; "
        "train, valid, test = get_dataloader(DIR). "
        "Without a network: fetch the files elsewhere, put them into DIR, and run this to check "
        "them. datasets/brca/README.md says what they hold.",
    )
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--name",
        choices=sorted(FILES),
        default="BRCA",
        help="which set (default: %(default)s); BRCA's files are checked against published git "
        "blob ids, ROSMAP's, for which none are known here, only to parse",
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="address of the folder that holds the files (default: MOGONET's, see above)",
    )
    args = parser.parse_args(argv)
    try:
        paths = download(args.data_dir, name=args.name, base_url=args.base_url)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    checked = (
        "each has its published git blob id"
        if all(FILES[args.name].values())
        else "no checksums are known for this set: it was only checked that the files parse"
    )
    sys.stdout.write(f"{len(paths)} files of {args.name} in {args.data_dir}; {checked}\n")


if __name__ == "__main__":
    main()
