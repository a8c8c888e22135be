"""Text as BERT's word pieces: words split into known pieces, each a number (Wu et al., 2016)."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .reading import clean_text, shown
from .vocabulary import check_order, read_tokenizer, read_vocabulary
from .writing import replaced

LONGEST = 1_000_000  # characters of a text: more take seconds, and no model reads them
LONG_WORD = 1_000  # letters of a word to learn from: the time grows with their square
PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
SPECIAL = (PAD, UNKNOWN, START, END)


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
