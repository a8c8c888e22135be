"""Text as BERT's word pieces: words split into known pieces, each a number (Wu et al., 2016)."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

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

        Raises:
            ValueError: if the texts hold no word, or more different characters than fit.
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
            ValueError: if it cannot be read, or is not BERT's.
            ImportError: if `tokenizers` is not installed.
        """
        path = _find(Path(path))
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} must be UTF-8 text, but {error}; get it again") from error
        if path.suffix != ".json":
            pieces = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
            vocabulary = {piece: number for number, piece in enumerate(pieces)}
            if "" in vocabulary or len(vocabulary) < len(pieces):  # numbers would lie beyond len
                raise ValueError(
                    f"{path} must hold a piece in every line, each once, but of its "
                    f"{len(pieces)} lines {len(pieces) - len(vocabulary)} are repeated and "
                    f"{pieces.count('')} empty; get it again"
                )
            return cls(_plain(vocabulary, lowercase=lowercase), source=str(path))
        tokenizers = _tokenizers()
        try:
            tokenizer = tokenizers.Tokenizer.from_str(text)
            kind = json.loads(text)["model"]["type"]
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(
                f"{path} must be a file of the tokenizers library, but {error}; get it again"
            ) from error
        if kind != "WordPiece":
            raise ValueError(f"{path} must hold word pieces, got {kind}; take BERT's")
        return cls(tokenizer, source=str(path))

    def save(self, path: str | Path) -> None:
        """Writes a file for `load`; its name ends in `.json`, or `path` is a folder."""
        path = Path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if path.suffix != ".json":
            raise ValueError(f"the name must end in .json, got {path}; as tokenizer.json")
        part = path.with_name(f"{path.name}.part")
        part.write_text(self._tokenizer.to_str(), encoding="utf-8")
        os.replace(part, path)

    def encode(self, texts: Sequence[str], *, length: int) -> np.ndarray:
        """Returns the numbers of [CLS], the pieces and [SEP], (texts, longest) int64.

        A text that is too long is cut, at most `length` numbers with both ends; shorter ones
        are filled up with 0 to the longest. An empty text is [CLS] [SEP].
        """
        if length < 2:
            raise ValueError(f"length must be at least 2, for {START} and {END}, got {length}")
        rows = []
        for text in texts:  # one by one: threads would not survive in forked worker processes
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
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        yield from (word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))


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
