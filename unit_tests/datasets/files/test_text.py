"""Word pieces: split by hand where that can be done, as transformers splits with its own, trained
to the same pieces every time, and errors that name the file."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deq_fusion.datasets.files.text import WordPieces, _library

pytest.importorskip("tokenizers")

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "film",
    "##s",
    "a",
    "un",
    "##able",
    "[",
    "]",
    ",",
    "e",
]
TEXTS = ["the film of a film", "films of the filming, THE end", "a éclair in the ending"] * 3


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return path


def named(tokens, text, length=50):
    """The pieces of a text, by name."""
    names = {number: name for name, number in tokens._tokenizer.get_vocab().items()}
    return [names[number] for number in tokens.encode([text], length=length)[0]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A film, films", ["a", "film", ",", "film", "##s"]),
        ("  unable\n", ["un", "##able"]),
        ("É filmed", ["e", "[UNK]"]),
        ("", []),
        (" \t", []),
    ],
)
def test_text_is_split_into_the_longest_pieces(vocabulary, text, expected):
    assert named(WordPieces.load(vocabulary), text) == ["[CLS]", *expected, "[SEP]"]


def test_text_cannot_forge_the_special_tokens(vocabulary):
    numbers = WordPieces.load(vocabulary).encode(["a [SEP] [PAD]"], length=50)[0]
    assert numbers[-1] == 3 and (numbers[1:-1] > 3).sum() == 5  # a [ ] [ ]
    assert not np.isin(numbers[1:-1], [0, 2, 3]).any()


def test_a_batch_is_as_long_as_its_longest_text(vocabulary):
    tokens = WordPieces.load(vocabulary)
    batch = tokens.encode(["films a", "", "a"], length=50)
    expected = [[2, 4, 5, 6, 3], [2, 3, 0, 0, 0], [2, 6, 3, 0, 0]]
    np.testing.assert_array_equal(batch, np.array(expected, dtype=np.int64), strict=True)
    assert tokens.encode([], length=5).shape == (0, 0)


def test_long_text_is_cut_and_still_ended(vocabulary):
    tokens = WordPieces.load(vocabulary)
    assert tokens.encode(["a a a a", "a"], length=4).tolist() == [[2, 6, 6, 3], [2, 6, 3, 0]]
    assert tokens.encode(["a a"], length=2).tolist() == [[2, 3]]
    with pytest.raises(ValueError, match="length must be at least 2"):
        tokens.encode(["a"], length=1)


def test_text_is_split_as_transformers_splits_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokens = WordPieces.train(TEXTS, size=60)
    names = sorted(tokens._tokenizer.get_vocab().items(), key=lambda item: item[1])
    (tmp_path / "vocab.txt").write_text("".join(f"{name}\n" for name, _ in names), "utf-8")
    reference = transformers.BertTokenizer.from_pretrained(tmp_path, local_files_only=True)
    texts = [*TEXTS, "", "unknown ζ: the Éclair's end -- " * 5]
    expected = reference(texts, padding=True, truncation=True, max_length=20)["input_ids"]
    for source in (tokens, WordPieces.load(tmp_path / "vocab.txt")):
        np.testing.assert_array_equal(source.encode(texts, length=20), expected)


def test_training_learns_the_frequent_words():
    tokens = WordPieces.train(TEXTS, size=200)
    assert len(tokens) <= 200
    assert named(tokens, "The FILM") == ["[CLS]", "the", "film", "[SEP]"]
    assert named(tokens, "eclair")[1:-1] == ["eclair"]
    assert named(tokens, "them")[1:-1][0] == "the" and named(tokens, "ж")[1:-1] == ["[UNK]"]


@pytest.mark.parametrize("size", [40, 45])
def test_no_more_pieces_are_learnt_than_asked_for(size):
    assert len(WordPieces.train(TEXTS, size=size)) == size


def test_training_is_repeatable_in_other_processes():
    code = (
        "from deq_fusion.datasets.files.text import WordPieces\n"
        f"print(WordPieces.train({TEXTS!r}, size=45)._tokenizer.to_str())"
    )
    root = Path(__file__).parents[3]
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
        ).stdout.strip()
        for _ in range(3)
    }
    assert runs == {WordPieces.train(iter(TEXTS), size=45)._tokenizer.to_str()}


def test_special_tokens_come_first():
    tokens = WordPieces.train(TEXTS, size=60)
    assert tokens.encode([""], length=5).tolist() == [[2, 3]]
    assert tokens._tokenizer.token_to_id("[UNK]") == 1


def test_pieces_are_saved_loaded_and_pickled(tmp_path):
    tokens = WordPieces.train(TEXTS, size=60)
    expected = tokens.encode(TEXTS, length=9)
    tokens.save(tmp_path)
    tokens.save(tmp_path / "other.json")
    loaded = [WordPieces.load(path) for path in (tmp_path, tmp_path / "other.json")]
    for copied in (*loaded, pickle.loads(pickle.dumps(tokens))):
        assert len(copied) == len(tokens)
        np.testing.assert_array_equal(copied.encode(TEXTS, length=9), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json", "tokenizer.json"]


def test_saved_padding_and_cuts_are_not_taken_over(tmp_path):
    tokens = WordPieces.train(TEXTS, size=60)
    expected = tokens.encode(TEXTS, length=9)
    tokens._tokenizer.enable_padding(length=30)
    tokens._tokenizer.enable_truncation(3)
    tokens.save(tmp_path)
    np.testing.assert_array_equal(WordPieces.load(tmp_path).encode(TEXTS, length=9), expected)


def test_case_is_kept_on_request(vocabulary):
    tokens = WordPieces.load(vocabulary, lowercase=False)
    assert named(tokens, "A a") == ["[CLS]", "[UNK]", "a", "[SEP]"]


def test_the_environment_is_left_as_it_was(monkeypatch):
    for value in ("true", None):
        monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
        if value:
            monkeypatch.setenv("TOKENIZERS_PARALLELISM", value)
        WordPieces.train(TEXTS, size=60)
        assert os.environ.get("TOKENIZERS_PARALLELISM") == value


def test_what_cannot_be_learnt_is_refused():
    with pytest.raises(ValueError, match="need text to learn from, but it holds no word"):
        WordPieces.train(["", " "], size=60)
    with pytest.raises(ValueError, match=r"size must be at least \d+, .*got 10; allow more"):
        WordPieces.train(TEXTS, size=10)


def test_a_missing_file_is_named_with_a_way_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer.json or .*vocab.txt; .*hf download"):
        WordPieces.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file .*other.txt"):
        WordPieces.load(tmp_path / "other.txt")


def test_a_file_that_is_not_berts_is_refused(tmp_path, vocabulary):
    vocabulary.write_text("\n".join(PIECES[1:]))
    with pytest.raises(ValueError, match=r"vocab.txt must hold \[PAD\] as number 0"):
        WordPieces.load(tmp_path)
    for extra in ("film", ""):  # numbers would no longer be below len(...)
        vocabulary.write_text("\n".join([*PIECES[:6], extra, *PIECES[6:]]))
        with pytest.raises(ValueError, match="vocab.txt must hold a piece in every line, each onc"):
            WordPieces.load(tmp_path)
    vocabulary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="vocab.txt must be UTF-8 text"):
        WordPieces.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="tokenizer.json must be a file of the tokenizers library"):
        WordPieces.load(tmp_path)
    import tokenizers

    model = tokenizers.models.BPE({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}, [])
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="must hold word pieces, got BPE"):
        WordPieces.load(tmp_path)
    with pytest.raises(ValueError, match="name must end in .json"):
        WordPieces.train(TEXTS, size=60).save(tmp_path / "vocab.txt")


def test_halves_of_surrogate_pairs_are_left_out(vocabulary):
    tokens = WordPieces.load(vocabulary)
    assert named(tokens, "a film\ud83d") == ["[CLS]", "a", "film", "[SEP]"]
    assert len(WordPieces.train([*TEXTS, "a man \ud83d"], size=60)) <= 60


def test_what_is_no_text_or_too_long_is_named(vocabulary):
    tokens = WordPieces.load(vocabulary)
    for wrong in (None, b"a", 3):
        with pytest.raises(ValueError, match="text 1 must be text, got"):
            tokens.encode(["a", wrong], length=5)
        with pytest.raises(ValueError, match="text 1 must be text, got"):
            WordPieces.train(["a", wrong], size=60)
    for act in (lambda t: tokens.encode(t, length=5), lambda t: WordPieces.train(t, size=60)):
        with pytest.raises(ValueError, match="text 1 must have at most 1,000,000 characters, but"):
            act(["a", "a" * 1_000_001])


def test_a_huge_word_is_unknown_and_not_learnt_from(vocabulary):
    assert named(WordPieces.load(vocabulary), "a " + "a" * 200_000) == [
        "[CLS]",
        "a",
        "[UNK]",
        "[SEP]",
    ]
    letters = "abcdefghij" * 20_000  # whose pairs would take minutes
    assert WordPieces.train([*TEXTS, letters], size=60)._tokenizer.get_vocab() == (
        WordPieces.train(TEXTS, size=60)._tokenizer.get_vocab()
    )


def google(lost=(), extra=(), unused=range(200)):
    """Lines as BERT's: those that are not used on both sides of the special ones."""
    names = [f"[unused{number}]" for number in unused]
    names = ["[PAD]", *names[:99], "[UNK]", "[CLS]", "[SEP]", "[MASK]", *names[99:], "the", "film"]
    return "\n".join([*extra, *(name for name in names if name not in lost)])


@pytest.mark.parametrize("content", [google(), google(unused=range(1, 201)), "\n".join(PIECES)])
def test_berts_order_of_lines_is_taken(vocabulary, content):
    vocabulary.write_text(content)
    assert named(WordPieces.load(vocabulary), "film")[1] == "film"


@pytest.mark.parametrize("number", [1, 50, 98, 99, 150])
def test_a_missing_line_among_the_unused_is_noticed(vocabulary, number):
    vocabulary.write_text(google(lost=[f"[unused{number}]"]))
    with pytest.raises(ValueError, match=rf"\[unused{number + 1}\] follows \[unused{number - 1}\]"):
        WordPieces.load(vocabulary)


def test_shifted_special_lines_are_warned_of(vocabulary):
    for content in (google(lost=["[unused0]"]), google().replace("[UNK]", "more\n[UNK]")):
        vocabulary.write_text(content)
        with pytest.warns(UserWarning, match=r"have the numbers \[\d+, \d+, .* was lost or added"):
            WordPieces.load(vocabulary)


def test_the_models_size_is_held_against_the_file(vocabulary):
    config = vocabulary.with_name("config.json")
    config.write_text('{"vocab_size": 13}')
    WordPieces.load(vocabulary)
    config.write_text('{"vocab_size": 12}')
    with pytest.raises(ValueError, match="must have at most 12 pieces, as config.json .* got 13"):
        WordPieces.load(vocabulary)
    config.write_text('{"vocab_size": 14}')
    with pytest.warns(UserWarning, match="has 13 pieces, and config.json beside it says 14"):
        WordPieces.load(vocabulary)


VOCAB = {name: number for number, name in enumerate(PIECES)}
MODEL = {"type": "WordPiece", "unk_token": "[UNK]", "vocab": VOCAB, "max_input_chars_per_word": 100}
MODEL = MODEL | {"continuing_subword_prefix": "##"}
FILE = {
    "version": "1.0",
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "added_tokens": [],
    "model": MODEL,
}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([], "but it has no model"),
        (FILE | {"model": None}, "but it has no model"),
        (FILE | {"model": MODEL | {"type": ["WordPiece"]}}, "must hold word pieces, got none"),
        (FILE | {"model": MODEL | {"type": "Unigram"}}, "must hold word pieces, got Unigram"),
        (FILE | {"normalizer": {"type": "Precompiled"}}, "BertNormalizer, got 'Precompiled'"),
        (FILE | {"normalizer": None}, "BertNormalizer, got None"),
        (FILE | {"pre_tokenizer": {"type": "ByteLevel"}}, "BertPreTokenizer, got 'ByteLevel'"),
        (FILE | {"pre_tokenizer": [1]}, "BertPreTokenizer, got None"),
        (FILE | {"model": MODEL | {"vocab": [1]}}, "must have a vocab and added_tokens"),
        (FILE | {"added_tokens": {"a": 1}}, "must have a vocab and added_tokens"),
        (FILE | {"added_tokens": [1]}, "every piece one number, but gives None another"),
        (FILE | {"added_tokens": [{"content": "film", "id": 5}]}, "gives 'film' another"),
        (
            FILE | {"model": MODEL | {"vocab": VOCAB | {"e": 13}}},
            "missing or there twice",
        ),
        (FILE | {"model": MODEL | {"vocab": VOCAB | {"e": 11}}}, "some are missing or there twice"),
        (FILE | {"model": MODEL | {"vocab": VOCAB | {"e": "12"}}}, r"of \['e'\] are none"),
        (FILE | {"model": MODEL | {"vocab": VOCAB | {"e": 12.0}}}, r"of \['e'\] are none"),
        (FILE | {"model": MODEL | {"vocab": VOCAB | {"e": True}}}, r"of \['e'\] are none"),
        (FILE | {"model": MODEL | {"vocab": VOCAB | {"e": 1 << 64}}}, "missing or there twice"),
        (FILE | {"model": MODEL | {"unk_token": "[unk]"}}, "unk_token .*, got '\\[unk\\]'"),
        (FILE | {"model": MODEL | {"unk_token": 1}}, "unk_token among its pieces, got 1"),
        (FILE | {"model": MODEL | {"max_input_chars_per_word": -1}}, "file of the tokenizers lib"),
        (FILE | {"normalizer": {"type": "BertNormalizer"}}, "file of the tokenizers library, but"),
        (FILE | {"version": "9"}, "file of the tokenizers library, but"),
    ],
)
def test_a_tokenizer_that_is_not_berts_is_refused(tmp_path, content, match):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(FILE))
    assert named(WordPieces.load(path), "film") == ["[CLS]", "film", "[SEP]"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=match) as error:
        WordPieces.load(path)
    assert "tokenizer.json" in str(error.value) and len(str(error.value)) < 500


def test_a_damaged_tokenizer_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    for content in ("{", "[" * 5000, '{"model": {"type": "a"}, "model": 1}', "\x00"):
        path.write_text(content)
        with pytest.raises(ValueError, match="tokenizer.json must be JSON, but"):
            WordPieces.load(path)


def test_a_panic_of_the_library_becomes_an_error_of_ours(tmp_path):
    class PanicException(BaseException):
        pass

    with pytest.raises(ValueError, match="a.json must be a file of the tokenizers library, but x"):
        with _library(tmp_path / "a.json"):
            raise PanicException("x")
    with pytest.raises(KeyboardInterrupt), _library(tmp_path / "a.json"):
        raise KeyboardInterrupt


def test_a_piece_with_a_carriage_return_inside_is_refused(tmp_path):
    """Readers that take it for the end of a line would number all that follows otherwise."""
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\nthe\r\n")
    assert len(WordPieces.load(path)) == 5
    path.write_bytes(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\rfilm\n")
    with pytest.raises(ValueError, match=r"vocab.txt must be one piece, but 'the\\rfilm' has"):
        WordPieces.load(path)
