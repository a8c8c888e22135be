"""The files of BERT's word pieces, checked before any library sees them."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

from .json_files import read_json
from .reading import listed, read_text, shown

LIMIT = 1 << 26  # bytes of a file: the largest of BERT's has 2 MB
UNUSED = re.compile(r"\[unused(\d{1,6})\]")
ANCHORS = ("[UNK]", "[CLS]", "[SEP]", "[MASK]")
# BERT's files have them behind a hundred lines that are not used, some others right behind [PAD].
PLACES = ([100, 101, 102, 103], [1, 2, 3, 4])
PARTS = ("version", "added_tokens", "normalizer", "pre_tokenizer", "model")


def read_vocabulary(path: Path) -> dict[str, int]:
    """Returns the pieces of a `vocab.txt`, one a line, and their numbers, which count the lines.

    Raises:
        FileNotFoundError, ValueError: see `read_text`; or if a piece is empty or there twice.
    """
    text = read_text(path, limit=LIMIT)
    pieces = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    if odd := [piece for piece in pieces if "\r" in piece]:  # to some readers two lines
        raise ValueError(
            f"every line of {path} must be one piece, but {shown(odd[0])} has a carriage return "
            "inside; get it again"
        )
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    if "" in vocabulary or len(vocabulary) < len(pieces):  # numbers would lie beyond len
        raise ValueError(
            f"{path} must hold a piece in every line, each once, but of its "
            f"{len(pieces)} lines {len(pieces) - len(vocabulary)} are repeated and "
            f"{pieces.count('')} empty; get it again"
        )
    return vocabulary


def read_tokenizer(path: Path) -> tuple[dict[str, int], str]:
    """Returns the pieces of a `tokenizer.json` and their numbers, and what to make of it.

    That is the file without what concerns the ends of a text: padding, cuts, special tokens.

    Raises:
        FileNotFoundError, ValueError: see `read_json`; or if it is no word pieces split as BERT's,
            or their numbers are not 0 to n - 1, each once.
    """
    content = read_json(path, limit=LIMIT)
    parts = content if isinstance(content, dict) else {}
    model = parts.get("model")
    if not isinstance(model, dict) or "type" not in model:
        raise ValueError(
            f"{path} must be a file of the tokenizers library, but it has no model; get it again"
        )
    if model["type"] != "WordPiece":
        kind = model["type"] if type(model["type"]) is str and len(model["type"]) < 40 else "none"
        raise ValueError(f"{path} must hold word pieces, got {shown(kind)[1:-1]}; take BERT's")
    for part, expected in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        kind = parts[part].get("type") if isinstance(parts.get(part), dict) else None
        if kind != expected:
            raise ValueError(
                f"{path} must split text as BERT's, with {expected}, got {shown(kind)}; take BERT's"
            )
    vocabulary = _number(path, model.get("vocab"), parts.get("added_tokens") or [])
    unknown = model.get("unk_token")
    if type(unknown) is not str or unknown not in model["vocab"]:
        raise ValueError(
            f"{path} must have its unk_token among its pieces, got {shown(unknown)}; get it again"
        )
    text = json.dumps({part: parts[part] for part in PARTS if part in parts})
    return vocabulary, text


def _number(path: Path, vocabulary: Any, added: Any) -> dict[str, int]:
    if not isinstance(vocabulary, dict) or not isinstance(added, list):
        raise ValueError(f"{path} must have a vocab and added_tokens, and does not; get it again")
    numbers = dict(vocabulary)
    for token in added:
        name = token.get("content") if isinstance(token, dict) else None
        if type(name) is not str or numbers.setdefault(name, token.get("id")) != token.get("id"):
            raise ValueError(
                f"{path} must give every piece one number, but gives {shown(name)} another among "
                "its added_tokens; get it again"
            )
    wrong = [name for name, number in numbers.items() if type(number) is not int]
    if wrong or sorted(numbers.values()) != list(range(len(numbers))):
        problem = (
            f"those of {listed(wrong)} are none" if wrong else "some are missing or there twice"
        )
        raise ValueError(
            f"{path} must number its {len(numbers)} pieces from 0 on without gaps, each once, but "
            f"{problem}; get it again"
        )
    return numbers


def check_order(path: Path, vocabulary: dict[str, int]) -> None:
    """Notices a missing or additional line by BERT's [unused] ones, and by the model's size.

    Raises:
        ValueError: if one of [unused0], [unused1], ... is missing among the others, or there are
            more pieces than config.json in the same folder says.
    """
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    unused = [int(match[1]) for match in map(UNUSED.fullmatch, ordered) if match]
    for before, after in zip(unused, unused[1:], strict=False):
        if after != before + 1:
            raise ValueError(
                f"{path} must hold every line of BERT's, but [unused{after}] follows [unused"
                f"{before}], so that the numbers of all pieces behind may be wrong; get it again"
            )
    places = [vocabulary.get(name) for name in ANCHORS]
    if unused and places not in PLACES:
        warnings.warn(
            f"in {path} {', '.join(ANCHORS)} have the numbers {places}, in BERT's own {PLACES[0]}: "
            "if a line was lost or added, all pieces behind have wrong numbers",
            stacklevel=3,
        )
    size = _read_size(path.with_name("config.json"))
    if size is not None and len(vocabulary) > size:
        raise ValueError(
            f"{path} must have at most {size} pieces, as config.json beside it says, got "
            f"{len(vocabulary)}; get both from one place"
        )
    if size is not None and len(vocabulary) < size:
        warnings.warn(
            f"{path} has {len(vocabulary)} pieces, and config.json beside it says {size}: if a "
            "line was lost, all pieces behind have wrong numbers",
            stacklevel=3,
        )


def _read_size(path: Path) -> int | None:
    if not path.is_file():
        return None
    content = read_json(path, limit=LIMIT)
    size = content.get("vocab_size") if isinstance(content, dict) else None
    return size if type(size) is int else None
