"""Text as BERT's word pieces: words split into known pieces, each a number (Wu et al., 2016).

The files that hold the pieces are checked before the tokenizers library sees them.
"""

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .json_files import read_json
from .reading import clean_text, listed, read_text, shown
from .writing import replaced

LONGEST = 1_000_000  # characters of a text: more take seconds, and no model reads them
LONG_WORD = 1_000  # letters of a word to learn from: the time grows with their square
PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIAL = (PAD, UNKNOWN, START, END)
LIMIT = 1 << 26  # bytes of a file: the largest of BERT's has 2 MB
UNUSED = re.compile(r"\[unused(\d{1,6})\]")
ANCHORS = ("[UNK]", "[CLS]", "[SEP]", "[MASK]")
# BERT's files have them behind a hundred lines that are not used, some others right behind [PAD].
PLACES = ([100, 101, 102, 103], [1, 2, 3, 4])
PARTS = ("version", "added_tokens", "normalizer", "pre_tokenizer", "model")


class WordPieces:
    """A vocabulary of word pieces, and the way text is split into them.

    Make one with `train` or `load`. It is picklable, and so can be used by worker processes.
    """

    def __init__(self, tokenizer, *, source: str) -> None:
        ids = [tokenizer.token_to_id(name) for name in SPECIAL]
        if ids[0] != 0 or None in ids:
            raise ValueError(
                f"{source} must hold {PAD} as number 0, and {UNKNOWN}, {START} and {END}, got the "
                f"numbers {dict(zip(SPECIAL, ids, strict=True))}; take a vocabulary of BERT's"
            )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self._start, self._end = ids[2:]

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    @classmethod
    def train(cls, texts: Iterable[str], *, size: int) -> "WordPieces":
        """Learns the pieces of lower-cased text; the same texts give the same pieces.

        Pieces are joined from characters, the most frequent pair first, as BERT's public
        trainer does. A character that no text holds makes its word unknown.

        Args:
            texts: those of the train part alone.
            size: the most entries, those for padding, unknown, start and end included.

        Words of more than 1,000 letters are left out; of more than 100 they would be unknown.

        Raises:
            ValueError: if the texts hold no word, or more different characters than fit; or names
                the text that is none, or has more than a million characters.
            ImportError: if `tokenizers` is not installed.
        """
        tokenizers = _tokenizers()
        tokenizer = _plain({name: i for i, name in enumerate(SPECIAL)}, lowercase=True)
        words = list(_words(tokenizer, texts))
        if not words:
            raise ValueError("word pieces need text to learn from, but it holds no word")
        # Left to the trainer, the pieces that continue a word are numbered in an order of chance.
        inside = sorted({f"##{letter}" for word in words for letter in word[1:]})
        trainer = tokenizers.trainers.WordPieceTrainer(
            vocab_size=size,
            min_frequency=2,
            special_tokens=[*SPECIAL, *inside],
            show_progress=False,
        )
        with _one_thread():
            tokenizer.train_from_iterator(words, trainer)
        vocabulary = tokenizer.get_vocab()
        if len(vocabulary) > size:
            raise ValueError(
                f"size must be at least {len(vocabulary)}, the different characters of the "
                f"texts at a word's start and inside it, got {size}; allow more"
            )
        # A new one, because the old takes all that it was given as special for special in texts.
        return cls(_plain(vocabulary, lowercase=True), source="the trained vocabulary")

    @classmethod
    def load(cls, path: str | Path, *, lowercase: bool = True) -> "WordPieces":
        """Reads `tokenizer.json` or BERT's `vocab.txt` (a piece a line), or a folder of either.

        Args:
            path: one of these files, or a folder; there `tokenizer.json` is preferred.
            lowercase: whether text is lower-cased and stripped of accents first. Matters for
                `vocab.txt` alone: `tokenizer.json` says so itself.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read, or is not BERT's: its pieces are not numbered from 0
                without gaps, each once, or [unused] lines are missing among others, which shifts
                the numbers of all behind. Where they may have shifted, a UserWarning says so.
            ImportError: if `tokenizers` is not installed.
        """
        path = _find(Path(path))
        if path.suffix == ".json":
            vocabulary, text = read_tokenizer(path)
            with _library(path):
                tokenizer = _tokenizers().Tokenizer.from_str(text)
        else:
            vocabulary = read_vocabulary(path)
            tokenizer = _plain(vocabulary, lowercase=lowercase)
        pieces = cls(tokenizer, source=str(path))
        check_order(path, vocabulary)
        return pieces

    def save(self, path: str | Path) -> None:
        """Writes a file for `load`; its name ends in `.json`, or `path` is a folder."""
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if path.suffix != ".json":
            raise ValueError(f"the name must end in .json, got {path}; as tokenizer.json")
        with replaced(path) as file:
            file.write(self._tokenizer.to_str().encode("utf-8"))

    def encode(self, texts: Sequence[str], *, length: int) -> np.ndarray:
        """Returns the numbers of [CLS], the pieces and [SEP], (texts, longest) int64.

        A text that is too long is cut, at most `length` numbers with both ends; shorter ones
        are filled up with 0 to the longest. An empty text is [CLS] [SEP]. Half of a surrogate
        pair counts as U+FFFD, which BERT leaves out.

        Raises:
            ValueError: names the text, counted from 0, that is none, or has more than a million
                characters.
        """
        if length < 2:
            raise ValueError(f"length must be at least 2, for {START} and {END}, got {length}")
        rows = []
        for text in _checked(texts):  # one by one: threads would not survive in forked workers
            pieces = self._tokenizer.encode(text, add_special_tokens=False).ids
            rows.append([self._start, *pieces[: length - 2], self._end])
        numbers = np.zeros((len(rows), max(map(len, rows), default=0)), dtype=np.int64)
        for filled, row in zip(numbers, rows, strict=True):
            filled[: len(row)] = row
        return numbers


def _tokenizers():
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(
            "word pieces need the tokenizers library, which cannot be imported; install it with "
            "`pip install -e .[features]`"
        ) from error
    return tokenizers


def _plain(vocabulary: dict[str, int], *, lowercase: bool):
    """Returns a tokenizer that splits as BERT's; no text is taken for a special token."""
    tokenizers = _tokenizers()
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=100)
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _words(tokenizer, texts: Iterable[str]) -> Iterator[str]:
    for text in _checked(texts):
        normal = tokenizer.normalizer.normalize_str(text)
        words = (word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
        yield from (word for word in words if len(word) <= LONG_WORD)


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {row} must be text, got {shown(text)}; leave it out")
        if len(text) > LONGEST:
            raise ValueError(
                f"text {row} must have at most {LONGEST:,} characters, but has {len(text):,}; "
                "shorten it"
            )
        yield clean_text(text)


@contextmanager
def _library(path: Path) -> Iterator[None]:
    """Turns what the tokenizers library raises into a ValueError that names the file.

    It raises nothing more precise than Exception, and for a fault of its own a PanicException,
    which is none, and has no name to import.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(
            f"{path} must be a file of the tokenizers library, but {shown(str(error))[1:-1]}; get "
            "it again"
        ) from error


def _find(path: Path) -> Path:
    names = [path / "tokenizer.json", path / "vocab.txt"] if path.is_dir() else [path]
    for name in names:
        if name.is_file():
            return name
    raise FileNotFoundError(
        f"no file {' or '.join(map(str, names))}; get BERT's with: "
        f"hf download google-bert/bert-base-uncased --local-dir DIR"
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keeps the library from starting threads: later forks of the process would complain."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def read_vocabulary(path: Path) -> dict[str, int]:
    """Returns the pieces of a `vocab.txt`, one a line, and their numbers, which count the lines.

    Raises:
        FileNotFoundError: see `read_text`.
        ValueError: see `read_text`; or if a piece is empty or there twice.
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
        FileNotFoundError: see `read_json`.
        ValueError: see `read_json`; or if it is no word pieces split as BERT's, or their numbers
            are not 0 to n - 1, each once.
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
