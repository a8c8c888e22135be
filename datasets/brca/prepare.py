"""Downloads BRCA or ROSMAP: ``deq-fusion prepare brca --data-dir DIR``.

The files are those of MOGONET (Wang et al., 2021), fetched as `datasets.files.download` does.
BRCA's are checked against their git blob ids, the SHA-1 that `git hash-object FILE` prints. For
ROSMAP's no ids are known here: they are only checked to parse.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files.download import Expected, fetch

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
        ValueError: if `name` is unknown, a file came that is not the expected one (it is kept
            aside), or another file has the place of an expected one (it is left alone).
    """
    if name not in FILES:
        raise ValueError(f"unknown set {name!r}; choose from {sorted(FILES)}")
    base_url = base_url or f"{SOURCE}/{name}"
    return [
        fetch(
            f"{base_url.rstrip('/')}/{file}",
            Path(data_dir) / file,
            expected=_expected(file, blob_id),
            progress=progress,
        )
        for file, blob_id in (FILES[name] if files is None else files).items()
    ]


def _expected(file: str, blob_id: str | None) -> Expected:
    if blob_id is not None:
        return Expected(git_blob_id=blob_id)
    return Expected(check=_check_names if file.endswith("_featname.csv") else _check_table)


def _check_table(path: Path) -> None:
    from .get_data import read_table  # imports torch, for which --help need not wait

    read_table(path)


def _check_names(path: Path) -> None:
    if not path.stat().st_size:
        raise ValueError("it is empty, and must hold a name a line")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a failure ends it with its message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="deq-fusion prepare brca",
        description="Downloads MOGONET's BRCA (about 55 MB) or ROSMAP into a folder, from "
        f"{SOURCE}/NAME , checks the files, and resumes where an earlier run was cut off. Files "
        "that are there already are checked, not fetched again.",
        epilog="Then, in Python: "
        "from deq_fusion.datasets.brca.get_data import get_dataloader; "
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
