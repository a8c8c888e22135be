"""Downloads MM-IMDB: ``deq-fusion prepare imdb --data-dir DIR [--raw]``.

25,959 films with their genres (Arevalo et al., 2017): `multimodal_imdb.hdf5`, the features, and
the archive of posters and plots, `mmimdb.tar.gz`. No checksum of either is known here: it is
checked that they open, and hold what they should for every film.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..files.archives import check_archive, unpack
from ..files.download import Expected, fetch, verify
from ..files.hdf5 import find_dataset, follow, open_file, whole
from ..files.json_files import read_json
from ..files.reading import shown

SOURCE = "https://archive.org/download/mmimdb"
FEATURES, ARCHIVE = "multimodal_imdb.hdf5", "mmimdb.tar.gz"
RAW = ("dataset", "split.json")
FILMS = 25_959
WIDTHS = {"features": (300,), "vgg_features": (4096,), "genres": (23,)}
"""The datasets that must be in the features, each with the shape of a film's row."""
OTHERS = ("images", "imdb_ids", "sequences")  # have a row a film too, where they are there


def download(
    data_dir: str | Path,
    *,
    raw: bool = False,
    base_url: str | None = None,
    films: int | None = FILMS,
    progress: bool = True,
) -> None:
    """Downloads the features, and on demand the posters and plots; all of it is checked.

    What is there already is checked and not fetched again.

    Args:
        data_dir: folder for the features; `dataset` and `split.json` are put there too.
        raw: whether to fetch and unpack the posters and plots as well.
        base_url: address of the folder that holds both files; None takes archive.org's.
        films: how many there must be; None takes any number.
        progress: whether to show bars.

    Raises:
        ConnectionError: see `datasets.files.download.fetch`.
        ValueError: see there, `datasets.files.archives.unpack` and `check_raw`.
    """
    folder, address = Path(data_dir), (base_url or SOURCE).rstrip("/")
    expected = Expected(check=lambda path: check_features(path, films=films))
    fetch(f"{address}/{FEATURES}", folder / FEATURES, expected=expected, progress=progress)
    if not raw:
        return
    if not all((folder / name).exists() for name in RAW):
        expected = Expected(check=check_archive)
        fetch(f"{address}/{ARCHIVE}", folder / ARCHIVE, expected=expected, progress=progress)
        unpack(folder / ARCHIVE, folder, wanted=RAW, progress=progress)
    check_raw(folder, films=films)


def check_features(path: Path, *, films: int | None = FILMS) -> dict[str, str]:
    """Returns the name and the shape and dtype of what a file of features has for every film.

    Raises:
        ValueError: if it is no HDF5 file or is cut off, lacks a dataset, or one has another shape.
    """
    try:
        file = open_file(path)
    except ValueError as error:
        raise ValueError(f"it must be an HDF5 file, but {error}") from error
    with file:
        names = (*WIDTHS, *OTHERS)
        items = {name: item for name in names if (item := follow(file, name)) is not None}
        with whole(file, "the shapes of the datasets"):
            found = {name: (item.shape or (), item.dtype) for name, item in items.items()}
            there = sorted(map(str, file))
        _check_shapes(found, there, films)
        for name in found:
            find_dataset(file, name)
    return {name: f"{shape} {dtype}" for name, (shape, dtype) in found.items()}


def _check_shapes(found: dict[str, tuple], there: list[str], films: int | None) -> None:
    if missing := [name for name in WIDTHS if name not in found]:
        raise ValueError(f"it must have the datasets {list(WIDTHS)}, got {there}: no {missing}")
    rows = found["features"][0][:1] if films is None else (films,)
    for name, (shape, _) in found.items():
        expected = (*rows, *WIDTHS.get(name, shape[1:]))
        if shape != expected:
            raise ValueError(
                f"{name} must have the shape {expected}, got {shape} (of another number of "
                "films: --films 0)"
            )


def check_raw(data_dir: str | Path, *, films: int | None = FILMS) -> dict[str, int]:
    """Returns the size of every part in `split.json`, each film of which has both of its files.

    Raises:
        ValueError: names the folder or file that is not as it should be, and says how.
    """
    dataset, split = (Path(data_dir) / name for name in RAW)
    if not (dataset.is_dir() and split.is_file()):
        raise ValueError(f"{data_dir} must have both a folder `dataset` and a file `split.json`")
    parts = read_json(split)
    lists = parts.values() if isinstance(parts, dict) else [None]
    if not all(isinstance(part, list) and all(isinstance(n, str) for n in part) for part in lists):
        raise ValueError(f"{split} must map names of parts to lists of ids, which are texts")
    ids = [film for part in lists for film in part]
    if len(set(ids)) != len(ids) or films not in (None, len(ids)):
        counts = f"{len(ids):,} ids, {len(set(ids)):,} of them different"
        raise ValueError(f"{split} must name {films or 'all'} films, each once; it has {counts}")
    there = set(os.listdir(dataset))
    files = (f"{film}{end}" for film in ids for end in (".jpeg", ".json"))
    if missing := [file for file in files if file not in there]:
        raise ValueError(
            f"{dataset} must have every film of {split.name}, but {len(missing):,} files are "
            f"missing, the first is {shown(missing[0])[1:-1]}; move `dataset` away to have it "
            "unpacked again"
        )
    return {name: len(part) for name, part in parts.items()}


def describe(data_dir: str | Path, *, films: int | None = FILMS) -> list[str]:
    """Checks what is there, and returns a line on each part of it.

    Raises:
        FileNotFoundError: if there are neither features nor posters and plots.
        ValueError: if what is there is not as it should be.
    """
    folder, lines = Path(data_dir), []
    if (path := folder / FEATURES).exists():
        verify(path, Expected(check=lambda path: check_features(path, films=films)))
        found = check_features(path, films=films)
        lines.append(f"{path}: {', '.join(f'{name} {what}' for name, what in found.items())}")
    if any((folder / name).exists() for name in RAW):
        counts = ", ".join(f"{n:,} {part}" for part, n in check_raw(folder, films=films).items())
        lines.append(f"{folder / RAW[0]}: a poster and a plot for each film ({counts})")
    if not lines:
        raise FileNotFoundError(
            f"neither {FEATURES} nor posters and plots are in {folder}; fetch them by "
            f"deq-fusion prepare imdb --data-dir {folder}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a failure ends it with its message and exit status 1."""
    parser = _make_parser()
    args = parser.parse_args(argv)
    films = args.films or None
    try:
        if not args.check:
            download(args.data_dir, raw=args.raw, base_url=args.base_url, films=films)
        lines = describe(args.data_dir, films=films)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    sys.stdout.write("\n".join((*lines, "no checksums are known for this set")) + "\n")


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deq-fusion prepare imdb",
        description=f"Downloads MM-IMDB's features, {FEATURES}, from {SOURCE} into a folder, with "
        f"--raw the posters and plots, {ARCHIVE}, as well (both are large), resumes where "
        "an earlier run was cut off, and checks what is there. No checksums are known: it checks "
        f"that the features open and have {', '.join(WIDTHS)} for {FILMS:,} films, and that every "
        "film of split.json has its poster and its plot.",
        epilog="Then, in Python: from deq_fusion.datasets.imdb.get_data import get_dataloader; "
        "train, valid, test = get_dataloader(DIR). "
        f"Without a network: fetch {FEATURES} and {ARCHIVE} elsewhere, put them into DIR, and run "
        "this to unpack and check them. datasets/imdb/README.md says what they hold.",
    )
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="folder for the files")
    parser.add_argument(
        "--raw",
        action="store_true",
        help="also fetch the posters and plots, and unpack them to DIR/dataset and DIR/split.json "
        f"({ARCHIVE} can be deleted then)",
    )
    parser.add_argument(
        "--check", action="store_true", help="fetch nothing, only check what is in DIR"
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="address of the folder that holds both files (default: archive.org's, see above)",
    )
    parser.add_argument(
        "--films",
        type=int,
        default=FILMS,
        metavar="N",
        help="how many films there must be, 0 for any number: for a set of your own in the same "
        "layout (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    main()
