"""CM-BERT's tables and the utterances' npz: what is written otherwise than it seems is named."""

import pickle
import re

import numpy as np
import pytest

from deq_fusion.datasets.affect import cm_bert, transcripts, utterance

COUNTS = {"train": 6, "valid": 3, "test": 4}
WIDTHS = {"text": 6, "audio": 4, "vision": 3}


class Words:
    def encode(self, texts, *, length):
        return np.ones((len(texts), min(length, 3)), np.int64)


@pytest.fixture
def tables(tmp_path):
    rng, audio = np.random.default_rng(2), []
    for part, count in COUNTS.items():
        lines = [f"SO I SAY {row}\t{rng.uniform(-3, 3):.2f}" for row in range(count)]
        (tmp_path / cm_bert.FILES[part]).write_text("\n".join(["text\tlabel", *lines]) + "\n")
        view = rng.normal(size=(count, 5, WIDTHS["audio"]))
        view[np.arange(5) > np.arange(count)[:, None] % 4] = 0
        audio.append(view)
    (tmp_path / "audio.pickle").write_bytes(pickle.dumps(tuple(audio)))
    return tmp_path, audio


@pytest.fixture
def utterances(tmp_path):
    rng, count = np.random.default_rng(3), 24
    arrays = {key: rng.normal(size=(count, width)) for key, width in WIDTHS.items()}
    arrays |= {
        "labels": rng.uniform(-3, 3, count),
        "id": np.array([f"u{row}" for row in range(count)]),
        "video_id": np.array([f"v{row // 3}" for row in range(count)]),
        "split": np.where(np.arange(count) < 6, "test", "train"),
        "transcript": np.array([f"so I say {row}" for row in range(count)]),
    }

    def write(**changes):
        np.savez(tmp_path / utterance.FILE, **(arrays | changes))
        return tmp_path / utterance.FILE

    return arrays, write


@pytest.mark.parametrize("row", [0, 7])
@pytest.mark.parametrize("value", [5.0, -30.0, 3.0000001])
def test_labels_of_utterances_out_of_range_are_named_by_row(utterances, row, value):
    arrays, write = utterances
    labels = arrays["labels"].copy()
    labels[row] = value
    with pytest.raises(
        ValueError, match=rf"labels in .*npz must lie in \[-3, 3\], but row {row} is"
    ):
        utterance.read_utterances(write(labels=labels))


def test_steps_that_come_last_are_warned_of_where_zeros_tell(tables):
    folder, audio = tables
    (folder / "audio.pickle").write_bytes(pickle.dumps([view.swapaxes(1, 2) for view in audio]))
    with pytest.warns(
        UserWarning, match=r"audio of \w+ in .* if steps come last, exchange the two"
    ):
        cm_bert.read_parts(folder, folder / "audio.pickle")


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_lengths_to_cut_to_are_whole_numbers(tables, steps):
    with pytest.raises(ValueError, match="length must be a whole number from 1 up, got"):
        cm_bert.get_dataloader(tables[0], tables[0] / "audio.pickle", Words(), length=steps)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\tlabel\na\t١\n", "sample 1 in .* .must be a number, as 3, .* got '١'"),
        ("text\tlabel\na\t1\nb\t1_0\n", "sample 2 in .* .must be a number, .* got '1_0'"),
        ("text\tlabel\na\tinf\n", "sample 1 in .* .must be finite"),
        ("text\tlabel\na\t\n", "sample 1 in .* got ''"),
        ("text\tlabel\na\tb\t1\n", "sample 1 in .* must have 2 columns"),
        ("text\tlabel\n1\tSO I SAY\n", "sample 1 in .* got 'SO I SAY'"),  # exchanged
        ("text\tlabel\na\t1\n\t\n", "sample 2 in .* got ''"),
        ("text\ttext\tlabel\na\tb\t1\n", "columns text and label, once each"),
        ('"text"\t"label"\n"a"\t1\n', "once each, without quotes"),
        ("SO I SAY\t1\n", "must begin with the columns text and label"),
        ("text\tlabel\nred\x1b[31m\tx\n", re.escape(r"got 'red\x1b[31m\tx'")),
    ],
)
def test_what_is_no_table_of_transcripts_is_named(tables, content, message):
    (tables[0] / "dev.tsv").write_text(content)
    with pytest.raises(ValueError, match="dev.tsv") as error:
        cm_bert.read_parts(tables[0], None)
    assert re.search(message, str(error.value)), error.value


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_with_any_line_ends_and_a_mark(tables, end):
    lines = ["text\tlabel", "SO\u2028I\x85SAY\t1", 'A "QUOTED" WORD\t-2.5', "", ""]
    (tables[0] / "dev.tsv").write_bytes(end.join(lines).encode("utf-8-sig"))
    part = cm_bert.read_parts(tables[0], None)["valid"]
    assert part.texts == [
        "SO\u2028I\x85SAY",
        'A "QUOTED" WORD',
    ] and part.labels.ravel().tolist() == [1, -2.5]


def test_other_encodings_and_quoted_texts(tables):
    (tables[0] / "dev.tsv").write_bytes("text\tlabel\na\t1\n".encode("utf-16"))
    with pytest.raises(ValueError, match="dev.tsv must be UTF-8 text"):
        cm_bert.read_parts(tables[0], None)
    (tables[0] / "dev.tsv").write_text('text\tlabel\n"he said ""no"""\t1\nb\t2\n')
    with pytest.warns(UserWarning, match="1 of the 2 texts in .*dev.tsv stand in quotes"):
        cm_bert.read_parts(tables[0], None)


@pytest.mark.parametrize(
    "tokens", [np.zeros((6, 9), np.int64), np.zeros(6), np.full((6, 2), -1), np.zeros((5, 2), int)]
)
def test_a_tokeniser_that_returns_something_else_is_answered(tables, tokens):
    class Wrong:
        def encode(self, texts, *, length):
            return tokens

    with pytest.raises(
        ValueError, match=r"the tokeniser must return whole numbers >= 0 of shape \(6, at most 4"
    ):
        cm_bert.get_dataloader(tables[0], None, Wrong(), modalities=["text"], length=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": np.full((24, 6), 1e39)}, r"text in .* 3.4e.?38.*1e\+39 is finite"),
        ({"text": np.zeros((24, 6), bool)}, "text in .* must be numbers of shape"),
        ({"labels": np.full(24, "1")}, "labels in .* must be numbers of shape"),
        ({"vision": np.zeros((24, 0))}, "vision in .* must be numbers of shape"),
        ({"id": np.arange(24.0)}, "id in .* must be text or whole numbers, got float64"),
        ({"video_id": np.ones(24, bool)}, "video_id in .* must be text or whole numbers, got bool"),
        ({"id": np.array(["\x1b[2J"] * 24)}, re.escape(r"'\x1b[2J' occurs 24 times")),
        ({"split": np.array([f"\x1b{n}" for n in range(24)])}, r"got \[.*x1b.*\] and 4 more"),
        ({"id": np.full(24, 1114112, "<u4").view("<U1")}, "id in .* is damaged"),
    ],
)
def test_arrays_of_something_else_are_named(utterances, changes, message):
    with pytest.raises(ValueError, match=f"{utterance.FILE}") as error:
        utterance.get_dataloader(utterances[1](**changes))
    assert re.search(message, str(error.value)), error.value
    assert str(error.value).isprintable()


def test_a_scale_of_utterances_that_leaves_float32_is_refused(utterances):
    arrays, write = utterances
    text = arrays["text"].copy()
    text[:, 0] = np.where(np.arange(24) % 2, 1e-44, 0)
    text[0, 0] = 1e30
    with pytest.raises(
        ValueError, match=f"{utterance.FILE}: view 1 of test must be finite, but its row 0"
    ):
        utterance.get_dataloader(write(text=text))


def test_transcripts_that_do_not_match_are_named(utterances):
    arrays, write = utterances
    for wrong in (
        arrays["transcript"][1:],
        np.arange(24),
        np.array([[f"{n}"] * 2 for n in range(24)]),
    ):
        with pytest.raises(ValueError, match=f"transcript in .*{utterance.FILE} must"):
            transcripts.read_parts(write(transcript=wrong), audio_dim=2)
    texts = arrays["transcript"].copy()
    texts[6] = "so \ud83d"
    parts = transcripts.read_parts(write(transcript=texts), audio_dim=2)
    assert "so \ufffd" in parts["train"].texts + parts["valid"].texts


@pytest.mark.filterwarnings("ignore:.*the same for all")
def test_audio_that_never_differs_has_no_components(utterances):
    arrays, write = utterances
    audio = np.ones_like(arrays["audio"])
    with pytest.raises(ValueError, match=f"{utterance.FILE} must differ for it to have components"):
        transcripts.read_parts(write(transcript=arrays["transcript"], audio=audio), audio_dim=2)
