"""Says which files of CMU-MOSI are there: ``deq-fusion prepare mosi --data-dir DIR``.

No stable public address of them is known, so nothing is downloaded: the command lists the files
that the adapters read, where to get each, and which are there, and verifies those. It can make one
of them, `mosi_utterance.npz`, of copies of the two repositories that its rows come from.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..files.download import Expected, verify

MMSA = "MOSI/Processed on the drives linked in the README of github.com/thuiar/MMSA"
MULTIBENCH = "the drive linked in the README of github.com/pliang279/MultiBench"
CM_BERT = "data/text of github.com/thuiar/Cross-Modal-BERT"


def _check_multibench(path: Path) -> None:
    from .get_data import read_parts  # imports torch, for which a list of files need not wait

    read_parts(path)


def _check_utterances(path: Path) -> None:
    from .utterance import read_utterances

    read_utterances(path)


class Known(NamedTuple):
    """A file of CMU-MOSI: what it must be, what it holds, and where it is from."""

    expected: Expected
    content: str
    source: str


FILES = {
    "mosi_raw.pkl": Known(
        Expected(check=_check_multibench), "MultiBench's sequences: vision 35, audio 74", MULTIBENCH
    ),
    "mosi_data.pkl": Known(
        Expected(check=_check_multibench), "MultiBench's sequences: vision 20, audio 5", MULTIBENCH
    ),
    "aligned_50.pkl": Known(
        Expected(sha256="d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9"),
        "MMSA's sequences, aligned to words (MOSEI's file has the same name)",
        MMSA,
    ),
    "unaligned_50.pkl": Known(
        Expected(sha256="78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524"),
        "MMSA's sequences, each at its own rate (MOSEI's file has the same name)",
        MMSA,
    ),
    "train.tsv": Known(Expected(), "CM-BERT's transcripts of train", CM_BERT),
    "dev.tsv": Known(Expected(), "CM-BERT's transcripts of validation", CM_BERT),
    "test.tsv": Known(Expected(), "CM-BERT's transcripts of test", CM_BERT),
    "MOSI_cmu_audio_CLS.pickle": Known(
        Expected(),
        "CM-BERT's audio, aligned to words",
        "data/audio of github.com/thuiar/Cross-Modal-BERT; where it is not, its authors have it",
    ),
    "mosi_utterance.npz": Known(
        Expected(check=_check_utterances),
        "a vector an utterance, as the figures of CMU-MOSI are of",
        "no repository as such: --features and --sentiment make it of bc-LSTM/data in a copy of "
        "github.com/declare-lab/multimodal-deep-learning, and data/text in one of "
        "github.com/thuiar/Cross-Modal-BERT",
    ),
}
"""The files by name."""


def describe(data_dir: str | Path) -> list[str]:
    """Returns two lines on each file: what it holds, and whether it is there or where it is."""
    lines = []
    for name, known in FILES.items():
        checksum = f" ({known.expected})" if str(known.expected) else ""
        there = (Path(data_dir) / name).is_file()
        state = "there" if there else f"not there; it is in {known.source}{checksum}"
        lines += [f"{name}: {known.content}", f"    {state}"]
    return lines


def check(data_dir: str | Path) -> dict[str, str]:
    """Verifies the files that are there, and returns what could be said of each, by name.

    Raises:
        FileNotFoundError: if none of the files is there.
        ValueError: names every file that is not the published one; all are left where they are.
    """
    found, problems = {}, []
    for name, known in FILES.items():
        if (path := Path(data_dir) / name).is_file():
            try:
                verify(path, known.expected)
            except ValueError as error:
                problems.append(str(error))
            found[name] = _how_sure(known.expected)
    if problems:
        raise ValueError("\n".join(problems))
    if not found:
        raise FileNotFoundError(
            f"none of the files {list(FILES)} is in {data_dir}; get one of them and put it there"
        )
    return found


def _how_sure(expected: Expected) -> str:
    if expected.sha256:
        return "has its published SHA-256"
    return "reads as it should" if expected.check else "no checksum is known, not verified"


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; if a file is not the published one, or none is there, the status is 1."""
    parser = argparse.ArgumentParser(
        prog="deq-fusion prepare mosi",
        description="Lists the files of CMU-MOSI that can be read, where to get each, and which "
        "are in a folder, and verifies those: by checksum where one is published. There is no "
        "stable public address to download them from. You need one of them (of CM-BERT's: its "
        "three tsv files and the audio), not all.",
        epilog="The exit status is 1 if a file is not the published one (it is left where it is) "
        "or if none is there, or could be made. datasets/affect/README.md says what they hold.",
    )
    add = parser.add_argument
    add("--data-dir", required=True, metavar="DIR", help="folder of the files")
    add("--features", metavar="DIR", help="bc-LSTM/data, to make mosi_utterance.npz of")
    add("--sentiment", metavar="DIR", help="data/text, likewise; both or none")
    args = parser.parse_args(argv)
    if (args.features is None) != (args.sentiment is None):
        parser.error("mosi_utterance.npz is made of --features and --sentiment, got one of them")
    if args.features is not None:
        _make_utterances(parser, args)
    sys.stdout.write("\n".join(describe(args.data_dir)) + "\n")
    try:
        found = check(args.data_dir)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    sys.stdout.write("".join(f"{name}: {state}\n" for name, state in found.items()))


def _make_utterances(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from .utterance_sources import write  # imports torch

    try:
        path = write(args.data_dir, args.features, args.sentiment)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    sys.stdout.write(f"{path} is made of {args.features} and {args.sentiment}\n")


if __name__ == "__main__":
    main()
