"""VQA-v2's download: four archives, unpacked, counted, and features handed to the converter.

A small set in the real layout, from a server on this machine (conftest.py).
"""

import io
import json
import os
import zipfile

import pytest

from deq_fusion.datasets.vqa.prepare import ARCHIVES, COUNTS, download, main

SMALL = {"train": 5, "val": 3}


def packed(name, data):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, data if isinstance(data, str) else json.dumps(data))
    return content.getvalue()


def part(count):
    """Questions and annotations, of as many questions."""
    ids = [{"question_id": 10 + i, "image_id": i // 2} for i in range(count)]
    answers = {
        "answer_type": "other",
        "multiple_choice_answer": "red",
        "answers": [{"answer": "red"}] * 10,
    }
    return (
        {"questions": [entry | {"question": "What colour?"} for entry in ids]},
        {"annotations": [entry | answers for entry in ids]},
    )


def archives(counts):
    """The archives by name, in the order of `ARCHIVES`."""
    questions, annotations = zip(*map(part, counts.values()), strict=True)
    files = dict(zip(ARCHIVES.items(), (*questions, *annotations), strict=True))
    return {archive: packed(name, data) for (archive, name), data in files.items()}


@pytest.fixture
def get(server, tmp_path):
    server.content = archives(SMALL)

    def get(counts=SMALL):
        return download(tmp_path / "vqa", base_url=server.url, counts=counts, progress=False)

    return get


def test_archives_are_fetched_and_unpacked_beside_them(get, server, tmp_path):
    assert get() == SMALL
    assert set(os.listdir(tmp_path / "vqa")) == {*ARCHIVES, *ARCHIVES.values()}
    questions = tmp_path / "vqa" / "v2_OpenEnded_mscoco_val2014_questions.json"
    assert json.loads(questions.read_text()) == part(SMALL["val"])[0]


def test_nothing_is_fetched_twice_even_without_the_archives(get, server, tmp_path):
    get()
    for archive in ARCHIVES:
        (tmp_path / "vqa" / archive).unlink()
    server.asked.clear()
    assert get() == SMALL and server.asked == []


def test_a_cut_download_is_resumed(get, server):
    first, server.cut = len(next(iter(server.content.values()))), 100
    server.headers["ETag"] = '"first"'
    with pytest.raises(ConnectionError, match="Train_mscoco.zip: .* ended after 100 .* to resume"):
        get()
    server.cut = None
    get()
    assert server.sent[:2] == [100, first - 100]


def test_what_is_no_archive_is_kept_aside(get, server, tmp_path):
    server.content["v2_Questions_Val_mscoco.zip"] = b"<html>moved</html>"
    with pytest.raises(ValueError, match="Val_mscoco.zip did not give .* neither a zip nor a tar"):
        get()
    assert "v2_Questions_Val_mscoco.zip.rejected" in os.listdir(tmp_path / "vqa")


def test_an_archive_of_another_file_is_named(get, server):
    server.content["v2_Questions_Val_mscoco.zip"] = packed("other.json", {})
    with pytest.raises(ValueError, match=r"must hold v2_.*_val2014_questions.json, .*other\.json"):
        get()


def test_every_question_must_have_its_annotation(get, server):
    less = archives({"train": 4, "val": 3})["v2_Annotations_Train_mscoco.zip"]
    server.content["v2_Annotations_Train_mscoco.zip"] = less
    with pytest.raises(ValueError, match="v2_mscoco_train2014_annotations.json"):
        get()


def test_there_must_be_as_many_questions_as_published(get):
    with pytest.raises(ValueError, match="train2014_questions.json must have 6 questions, got 5"):
        get({"train": 6, "val": 3})


def test_a_missing_archive_names_the_address_and_the_manual_way(get, server):
    server.content.clear()
    with pytest.raises(ConnectionError, match=f"{server.url}/v2_Questions_Train.* by hand and sav"):
        get()


def test_the_command_says_what_is_there(get, server, tmp_path, capsys, monkeypatch):
    arguments = ["--data-dir", str(tmp_path / "vqa"), "--base-url", server.url]
    with pytest.raises(SystemExit, match="1"):
        main(arguments)
    assert "must have 443,757 questions, got 5" in capsys.readouterr().err
    for name, count in SMALL.items():
        monkeypatch.setitem(COUNTS, name, count)
    server.asked.clear()
    main([*arguments, "--check"])
    assert "5 of train, 3 of val" in capsys.readouterr().out and server.asked == []


def test_a_check_fetches_nothing(get, server, tmp_path, capsys):
    with pytest.raises(SystemExit, match="1"):
        main(["--data-dir", str(tmp_path), "--base-url", server.url, "--check"])
    assert "v2_OpenEnded_mscoco_train2014_questions.json" in capsys.readouterr().err
    assert server.asked == [] and os.listdir(tmp_path) == []


def test_features_are_handed_to_the_converter(tmp_path, capsys, monkeypatch):
    calls = []

    def convert(folder, output, *, progress):
        calls.append((folder, output, progress))

    monkeypatch.setattr("deq_fusion.datasets.vqa.features.convert_npz", convert)
    main(["--npz", "folder", "--output", "features.hdf5"])
    assert calls == [("folder", "features.hdf5", True)]
    assert "features of folder in features.hdf5" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--check"], ["--npz", "a"], ["--output", "b"]])
def test_half_a_command_is_answered_with_what_is_missing(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "--npz and --output" in capsys.readouterr().err.splitlines()[-1]


def test_the_help_says_what_the_command_does(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "443,757" in text and "214,354" in text and "resumes" in text
    assert "gzipped (.json.gz), of another release need no preparation" in text
