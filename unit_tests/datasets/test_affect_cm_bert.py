"""CM-BERT's tables and audio: rows that belong together, tokens by an object, clear errors."""

import pickle

import numpy as np
import pytest
import torch

from deq_fusion.datasets.affect.cm_bert import get_dataloader, read_parts

FILES = {"train": "train.tsv", "valid": "dev.tsv", "test": "test.tsv"}
COUNTS = {"train": 7, "valid": 3, "test": 4}
AUDIO = "MOSI_cmu_audio_CLS.pickle"


class Lengths:
    """A tokeniser that writes how long each word is, and notes what it has seen."""

    def encode(self, texts, *, length):
        rows = [[len(word) for word in text.split()][:length] for text in texts]
        longest = max(map(len, rows))
        return np.array([row + [0] * (longest - len(row)) for row in rows])


@pytest.fixture
def data():
    rng = np.random.default_rng(2)
    texts, labels, audio = {}, {}, []
    for part, count in COUNTS.items():
        texts[part] = ["A \"QUOTED' " + "WORD " * (row + 1) + part.upper() for row in range(count)]
        labels[part] = rng.uniform(-3, 3, count).round(3)
        rows = rng.normal(1, 2, (count, 50, 5))
        rows[:, 0] = 0  # the first token's
        for row in range(count):
            rows[row, 5 + row :] = 0
        audio.append(rows)
    return texts, labels, audio


@pytest.fixture
def write(tmp_path, data):
    def write():
        texts, labels, audio = data
        for part, file in FILES.items():
            lines = ["text\tlabel"]
            lines += [f"{t}\t{v}" for t, v in zip(texts[part], labels[part], strict=True)]
            (tmp_path / file).write_text("\n".join(lines) + "\n")
        (tmp_path / AUDIO).write_bytes(pickle.dumps(tuple(audio), 2))
        return tmp_path, tmp_path / AUDIO

    return write


def test_batches_are_tokens_audio_and_labels(write, data):
    texts, labels, audio = data
    loaders = get_dataloader(*write(), Lengths(), batch_size=3)
    for loader, part, expected in zip(loaders, COUNTS, audio, strict=True):
        rows = {np.float32(label).item(): row for row, label in enumerate(labels[part])}
        served = []
        for tokens, sounds, truth in loader:
            assert tokens.shape == (len(truth), 50) and tokens.dtype == torch.int64
            assert sounds.shape == (len(truth), 50, 5) and sounds.dtype == torch.float32
            assert truth.shape == (len(truth), 1) and truth.dtype == torch.float32
            for token, sound, label in zip(tokens, sounds, truth[:, 0].tolist(), strict=True):
                row = rows[label]
                words = [len(word) for word in texts[part][row].split()]
                assert token.tolist() == words + [0] * (50 - len(words))
                np.testing.assert_array_equal(sound, np.float32(expected[row]))
                served.append(row)
        assert sorted(served) == list(range(COUNTS[part]))
        assert (served == sorted(served)) == (part != "train")


def test_parts_keep_transcripts_as_they_were_written(write, data):
    parts = read_parts(*write())
    for part, texts in data[0].items():
        assert parts[part].texts == texts
        np.testing.assert_array_equal(parts[part].labels[:, 0], np.float32(data[1][part]))


@pytest.mark.parametrize(
    ("modalities", "dtypes"),
    [
        (["text"], [torch.int64]),
        (["audio"], [torch.float32]),
        (["audio", "text"], [torch.float32, torch.int64]),
    ],
)
def test_modalities_come_in_the_order_asked_for(write, modalities, dtypes):
    folder, audio = write()
    loaders = get_dataloader(folder, audio, Lengths(), modalities=modalities)
    *views, _ = next(iter(loaders[1]))
    assert [view.dtype for view in views] == dtypes


def test_the_tables_alone_give_text(write):
    folder, _ = write()
    tokens, truth = next(iter(get_dataloader(folder, None, Lengths(), modalities=["text"])[2]))
    assert len(tokens) == len(truth) == COUNTS["test"]
    with pytest.raises(ValueError, match="audio needs audio_path; give it, or leave audio out"):
        get_dataloader(folder, None, Lengths())


def test_length_cuts_tokens_and_audio(write, data):
    tokens, audio, _ = next(iter(get_dataloader(*write(), Lengths(), length=4)[2]))
    assert tokens.shape == (4, 4) and audio.shape == (4, 4, 5)
    np.testing.assert_array_equal(audio, np.float32(data[2][2][:, :4]))


def test_the_scale_is_fitted_on_trains_steps_only(write, data):
    audio = data[2]
    first = scaled(write())
    steps = np.concatenate([rows[: 5 + row] for row, rows in enumerate(audio[0])])
    for row in range(COUNTS["test"]):
        expected = (audio[2][row, : 5 + row] - steps.mean(axis=0)) / steps.std(axis=0)
        np.testing.assert_allclose(first[2][row, : 5 + row], expected, atol=1e-4)
        assert not first[2][row, 5 + row :].any()
    audio[1] *= 100
    audio[2] *= 100
    torch.testing.assert_close(scaled(write())[0], first[0], rtol=0, atol=0)


def scaled(paths):
    torch.manual_seed(1)  # train's order
    loaders = get_dataloader(*paths, Lengths(), scale=True, batch_size=None)
    return [next(iter(loader))[1] for loader in loaders]


def test_a_tokeniser_of_word_pieces_fits(write):
    pytest.importorskip("tokenizers")
    from deq_fusion.datasets.files.text import WordPieces

    paths = write()
    pieces = WordPieces.train(read_parts(*paths)["train"].texts, size=60)
    tokens, _, _ = next(iter(get_dataloader(*paths, pieces)[1]))
    assert tokens.shape == (3, 50) and tokens.max() < len(pieces) and (tokens[:, 0] != 0).all()


def test_rows_of_tables_and_audio_must_agree(write, data):
    data[2][1] = data[2][1][1:]
    with pytest.raises(ValueError, match=r"audio of valid in .*CLS.pickle, for .*dev.tsv .* \(3, "):
        read_parts(*write())


def test_audio_is_finite_but_for_the_log_of_silence(write, data):
    data[2][0][2, 1, 1] = -np.inf
    assert read_parts(*write())["train"].views["audio"].values[2, 1, 1] == 0
    data[2][0][2, 1, 1] = np.nan
    with pytest.raises(ValueError, match="audio of train in .* finite, but row 2 is not"):
        read_parts(*write())


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ("", r"dev.tsv must begin with the columns text and label, .* got \[\] and 0 lines"),
        ("text\tlabel\n", "got .* and 0 lines"),
        ("text,label\na,1\n", "must begin with the columns"),
        ("text\tlabel\na\t1\nb\n", "sample 2 in .*dev.tsv must have 2 columns"),
        ("text\tlabel\na\tgood\n", "sample 1 in .*dev.tsv must have 2 columns and a number"),
        ("text\tlabel\na\t1\nb\t3.2\n", r"label in .*dev.tsv must lie in \[-3, 3\], but row 1"),
        ("text\tlabel\na\tnan\n", "sample 1 in .*dev.tsv .* .must be finite, got 'nan'."),
    ],
)
def test_a_wrong_table_is_named(write, lines, match):
    paths = write()
    (paths[0] / "dev.tsv").write_text(lines)
    with pytest.raises(ValueError, match=match):
        read_parts(*paths)


def test_columns_may_come_in_any_order(write):
    folder, _ = write()
    (folder / "dev.tsv").write_bytes("﻿label\ttext\r\n-1.5\tGOOD ÉCLAIR\r\n".encode())
    part = read_parts(folder, None)["valid"]
    assert part.texts == ["GOOD ÉCLAIR"] and part.labels.tolist() == [[-1.5]]


def test_missing_and_wrong_files_are_named(write, tmp_path):
    folder, audio = write()
    with pytest.raises(
        FileNotFoundError, match="no file .*other; it comes from .*Cross-Modal-BERT"
    ):
        read_parts(folder, tmp_path / "other")
    audio.write_bytes(pickle.dumps({"train": 1}))
    with pytest.raises(
        ValueError, match="CLS.pickle must be a tuple of three arrays, .* got a dict of 1"
    ):
        read_parts(folder, audio)
    (folder / "test.tsv").unlink()
    with pytest.raises(FileNotFoundError, match="no file .*test.tsv; it comes from"):
        read_parts(folder, audio)
