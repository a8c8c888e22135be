"""`mosi_utterance.npz` made of two repositories' tables: every row is put together by hand here."""

import csv

import numpy as np
import pytest

from deq_fusion.datasets.affect.prepare import main
from deq_fusion.datasets.affect.transcripts import read_parts
from deq_fusion.datasets.affect.utterance import read_utterances
from deq_fusion.datasets.affect.utterance_sources import FOLDERS, make_arrays, write

ROWS = [  # id, transcript, part, sentiment, CM-BERT's part and spelling of it
    ("v-1_1", "IT WAS FUN", "test", 1.5, "train", "it was fun "),
    ("v-1_2", "OK, OK", "test", -0.5, "train", "OK OK"),
    ("w_x_1", "I HATED IT", "train", -3.0, "test", "I HATED IT"),
    ("w_x_2", "I HATED IT", "train", -2.0, "test", "I hated it"),
    ("y_1", "SO WHAT", "train", 0.0, "dev", "SO WHAT"),
]
WIDTHS = {"text": 3, "audio": 2, "vision": 4}


def number(row, modality, column):
    return 100 * row + 10 * list(WIDTHS).index(modality) + column + 0.25


def save(path, lines, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **how).writerows(lines)


@pytest.fixture
def folders(tmp_path):
    """Both folders; the parts' lines are in an order of their own."""
    features, tables = tmp_path / "data", tmp_path / "text"
    quoted = {"quoting": csv.QUOTE_ALL}
    save(features / "transcripts.csv", [[r[0], r[1], "93", "1"] for r in ROWS], **quoted)
    for part in ("train", "test"):
        rows = [i for i, row in enumerate(ROWS) if row[2] == part][::-1]
        save(features / f"text_{part}.csv", [[i, "x"] for i in rows], **quoted)
        for name, inside in FOLDERS.items():
            lines = [[*(number(i, name, c) for c in range(WIDTHS[name])), 1] for i in rows]
            save(features / inside / f"{inside}_{part}0.csv", lines, **quoted)
    for part in ("train", "dev", "test"):
        lines = [["text", "label"], *([r[5], r[3]] for r in ROWS if r[4] == part)]
        save(tables / f"{part}.tsv", lines, delimiter="\t")
    return features, tables


def test_every_row_has_its_features_its_sentiment_and_its_part(folders):
    arrays = make_arrays(*folders)
    for i, (name, words, part, sentiment, *_) in enumerate(ROWS):
        assert arrays["id"][i] == name and arrays["transcript"][i] == words
        assert arrays["video_id"][i] == name[:-2] and arrays["split"][i] == part
        assert arrays["labels"][i] == np.float32(sentiment)
        for modality, width in WIDTHS.items():
            expected = [number(i, modality, column) for column in range(width)]
            assert arrays[modality][i].tolist() == expected


def test_the_command_makes_what_the_adapters_read(folders, tmp_path, capsys):
    features, tables = map(str, folders)
    to = tmp_path / "new" / "mosi"
    main(["--data-dir", str(to), "--features", features, "--sentiment", tables])
    assert "mosi_utterance.npz: reads as it should" in capsys.readouterr().out
    views, labels, videos, is_test = read_utterances(to)
    assert [view.shape for view in views] == [(5, 3), (5, 2), (5, 4)]
    assert labels[:, 0].tolist() == [row[3] for row in ROWS]
    assert videos.tolist() == ["v-1", "v-1", "w_x", "w_x", "y"] and is_test.tolist()[:2] == [1, 1]
    assert sorted(read_parts(to, audio_dim=1, valid_share=0.5)["test"].texts) == [
        "IT WAS FUN",
        "OK, OK",
    ]


@pytest.mark.parametrize(
    "file, lines, message",
    [
        ("transcripts.csv", None, "no file .*transcripts.csv; it is in bc-LSTM/data"),
        ("transcripts.csv", [["v_1"]], "an id and a transcript in every line"),
        (
            "transcripts.csv",
            [["v_1", "x" * 200_000]],
            "transcripts.csv must be a table .*, but fie",
        ),
        ("text_test.csv", [["1"]], "must have each of the 5 utterances .* once, got 4"),
        ("text_test.csv", [["1"], ["4"]], "must have each of the 5 utterances .* once"),
        ("text_test.csv", [["1"], ["5"]], "must be numbers of lines of transcripts.csv, from 0"),
        ("audio/audio_test0.csv", [["1", "2", "0"]], "a line for each of the 2 utterances"),
        ("audio/audio_test0.csv", [["1", "0"], ["x", "0"]], "equally many numbers in every line"),
        ("video/video_train0.csv", [["1", "0"], ["1"]], "equally many numbers in every line"),
        ("audio/audio_test0.csv", [["1", "0"], ["nan", "0"]], "audio_test0.csv must hold finite"),
        ("audio/audio_test0.csv", [["1", "0"], ["1e39", "0"]], "numbers of float32's range"),
    ],
)
def test_what_is_wrong_is_named(folders, tmp_path, file, lines, message):
    features, tables = folders
    (features / file).unlink() if lines is None else save(features / file, lines)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        write(tmp_path / "to", features, tables)
    assert not (tmp_path / "to").exists()


def test_a_transcript_without_a_sentiment_is_named(folders, capsys):
    features, tables = folders
    save(tables / "dev.tsv", [["text", "label"], ["I HATED IT", "1"]], delimiter="\t")
    with pytest.raises(SystemExit, match="1"):
        main(["--data-dir", "x", "--features", str(features), "--sentiment", str(tables)])
    assert "but 'SO WHAT' has none" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["--data-dir", "x", "--features", str(features)])
    assert "made of --features and --sentiment, got one" in capsys.readouterr().err
