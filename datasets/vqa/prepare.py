"""Downloads VQA-v2's questions and answers: ``deq-fusion prepare vqa --data-dir DIR``.

The questions of train and val and their annotations (Goyal et al., 2017) are four zip files of
one JSON file each. No checksums of them are known here; unpacking checks the archive's own, and
every question must have its annotation.

Features of the images come from elsewhere. Those that lie in an npz file an image are joined to
one HDF5 file by ``--npz FOLDER --output FILE.hdf5``, see `features.convert_npz`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files.archives import check_archive, unpack
from ..files.download import Expected, fetch
from .annotations import OFFICIAL, read_part

SOURCE = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
ARCHIVES = {
    "v2_Questions_Train_mscoco.zip": "v2_OpenEnded_mscoco_train2014_questions.json",
    "v2_Questions_Val_mscoco.zip": "v2_OpenEnded_mscoco_val2014_questions.json",
    "v2_Annotations_Train_mscoco.zip": "v2_mscoco_train2014_annotations.json",
    "v2_Annotations_Val_mscoco.zip": "v2_mscoco_val2014_annotations.json",
}
"""The archives, each with the file in it."""
COUNTS = {"train": 443_757, "val": 214_354}
"""The questions of each part."""


def download(
    data_dir: str | Path,
    *,
    base_url: str | None = None,
    counts: Mapping[str, int] = COUNTS,
    progress: bool = True,
) -> dict[str, int]:
    """Downloads and unpacks the questions and annotations, and returns the questions of a part.

    A file that is unpacked already is checked, and its archive is not fetched again.

    Args:
        data_dir: folder for the archives and for what they hold.
        base_url: address of the folder that holds the archives; None takes the official one.
        counts: how many questions "train" and "val" must have.
        progress: whether to show bars.

    Raises:
        ConnectionError: see `datasets.files.download.fetch`.
        ValueError: see there, `datasets.files.archives.unpack` and `check`.
    """
    folder, address = Path(data_dir), (base_url or SOURCE).rstrip("/")
    for archive, name in ARCHIVES.items():
        if not (folder / name).exists():
            expected = Expected(check=check_archive)
            fetch(f"{address}/{archive}", folder / archive, expected=expected, progress=progress)
            unpack(folder / archive, folder, wanted=[name], progress=progress)
    return check(folder, counts=counts)


def check(data_dir: str | Path, *, counts: Mapping[str, int] = COUNTS) -> dict[str, int]:
    """Reads what is unpacked, and returns the number of questions of each part.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, the questions and the annotations of a part do not belong
            together, or are not as many as `counts` says.
    """
    found = {}
    for part, count in counts.items():
        questions, annotations = (
            Path(data_dir) / OFFICIAL[kind].format(part=part)
            for kind in ("questions", "annotations")
        )
        found[part] = len(read_part(questions, annotations).texts)
        if found[part] != count:
            raise ValueError(
                f"{questions} must have {count:,} questions, got {found[part]:,}; move it and "
                f"{annotations.name} away, with their archives, and run this again"
            )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a failure ends it with its message and exit status 1."""
    parser = _make_parser()
    args = parser.parse_args(argv)
    if (args.npz is None) != (args.output is None):
        parser.error("--npz and --output go together")
    if args.data_dir is None and args.npz is None:
        parser.error("nothing to do: give --data-dir, or --npz and --output")
    try:
        if args.data_dir is not None:
            found = check(args.data_dir) if args.check else _download(args)
            counts = ", ".join(f"{count:,} of {part}" for part, count in found.items())
            sys.stdout.write(f"questions with their answers in {args.data_dir}: {counts}\n")
        if args.npz is not None:
            from .features import convert_npz  # needs torch, whose import takes longer than a check

            convert_npz(args.npz, args.output, progress=True)
            sys.stdout.write(f"features of {args.npz} in {args.output}\n")
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")


def _download(args: argparse.Namespace) -> dict[str, int]:
    return download(args.data_dir, base_url=args.base_url)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deq-fusion prepare vqa",
        description="Downloads VQA-v2's questions and annotations, four zip files, from "
        f"{SOURCE} into a folder, unpacks them, resumes where an earlier run was cut off, and "
        f"checks that train has {COUNTS['train']:,} questions and val {COUNTS['val']:,}, each "
        "with its answers. No checksums of the files are known. With --npz and --output it joins "
        "features that lie in an npz file an image, as MCAN's do, to one HDF5 file.",
        epilog="Files {train,valid,val,test}_{questions,annotations}.json, also gzipped "
        "(.json.gz), of another release need no preparation: they are read as they are. "
        "Without a network: fetch the zip files elsewhere, put them into DIR, and run this to "
        "unpack and check them. Features of the images are in MCAN's README (MILVLG/mcan-vqa on "
        "GitHub), 10 to 100 regions x 2048 an image. Then, in Python: "
        "from deq_fusion.datasets.vqa.get_data import get_dataloader; "
        "train, valid, test = get_dataloader(DIR). datasets/vqa/README.md says more.",
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder for questions and annotations")
    parser.add_argument(
        "--check", action="store_true", help="fetch nothing, only check what is in DIR"
    )
    parser.add_argument(
        "--base-url",
        metavar="URL",
        help="address of the folder that holds the zip files (default: see above)",
    )
    parser.add_argument(
        "--npz",
        metavar="FOLDER",
        help="folder of npz files, COCO_<split>_<12-digit image id>.jpg.npz, to be converted",
    )
    parser.add_argument(
        "--output", metavar="FILE.hdf5", help="the converted features; an interrupted run goes on"
    )
    return parser


if __name__ == "__main__":
    main()
