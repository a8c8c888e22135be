"""Sets without answers or without features: questions of test are answered in the official file,
what cannot be scored or seen is said before training."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest

from deq_fusion.datasets.vqa.annotations import read_part
from deq_fusion.datasets.vqa.answers import read_results, score
from deq_fusion.examples.vqa.recipe import find_pictures
from deq_fusion.examples.vqa.recipe import recipe as vqa
from deq_fusion.examples.vqa.train import main
from unit_tests.examples import test_recipes

questions, pictures = test_recipes.questions, test_recipes.pictures  # its fixtures
called, small = test_recipes.called, test_recipes.small
COLOURS = test_recipes.COLOURS


def ask(path, images, first=5000):
    """Questions about images, without answers; returns the right ones by question."""
    asked = [
        {"question_id": first + n, "image_id": image, "question": "what colour is thing 1"}
        for n, image in enumerate(images)
    ]
    path.write_text(json.dumps({"questions": asked}))
    return {entry["question_id"]: COLOURS[entry["image_id"] % 3] for entry in asked}


@pytest.mark.parametrize("fusion", ["deq", "mutan"])
def test_what_is_submitted_is_what_was_scored(pictures, tmp_path, fusion, capsys):
    path, output = tmp_path / "more.json", tmp_path / "results.json"
    path.write_bytes((pictures / "val_questions.json").read_bytes())
    more = ["--set", "width=16", "--set", "batch_size=8", "--set", "lr=0.01", "--epochs", "20"]
    more += ["--fusion", fusion]
    result = called(main, pictures, *more, "--predict", str(path), "--submission", str(output))
    part = read_part(path, pictures / "val_annotations.json")
    scores = score(read_results(output), part, digits=None)
    assert scores["overall"] == pytest.approx(100 * result["scores"]["accuracy"])
    assert scores["overall"] > 50 and result["analysis"] == {"questions": 30}  # chance is a third
    assert f"the answers to 30 questions of {path} are in {output}" in capsys.readouterr().out


@pytest.mark.parametrize("host", ["bag", "mcan"])
def test_test_without_annotations_is_answered(questions, tmp_path, host):
    right = ask(questions / "test_questions.json", range(2000, 2070))
    output = tmp_path / "results.json"
    size = [] if host == "bag" else ["--set", "host=mcan", "--set", "size=tiny"]
    more = ["--part", "valid", "--submission", str(output), *size]
    called(main, questions, *more)
    given = read_results(output)
    assert list(given) == list(right) and set(given.values()) <= set(COLOURS)


def test_test_without_annotations_cannot_be_scored(questions):
    ask(questions / "test_questions.json", [1, 2])
    recipe = vqa(questions, min_count=1)
    with pytest.raises(ValueError, match="cannot be scored: give --part valid, .*--submission"):
        recipe.loaders(0)
    test = replace(recipe, part="valid").loaders(0)[2]
    assert set(next(iter(test))[-1]) == {"question_id"}


def test_what_cannot_be_submitted_is_said_before_training(pictures, tmp_path, capsys):
    def refused(*more):
        with pytest.raises(SystemExit):
            called(main, pictures, *more)
        out, err = capsys.readouterr()
        assert "seed 0" not in out  # nothing was trained
        return err

    output = str(tmp_path / "results.json")
    assert "no questions of test in" in refused("--submission", output)
    path = tmp_path / "more.json"
    ask(path, [1000, 77, 78])
    assert "leave out one" in refused("--unimodal", "--submission", output)
    asked = ("--predict", str(path), "--submission")
    assert "of 3 images 2 have no features, the first is image 77" in refused(*asked, output)
    ask(path, [1000])
    assert "--submission must name a file" in refused(*asked, str(tmp_path / "none" / "a.json"))
    path.write_text("{")
    assert "more.json must be JSON" in refused(*asked, output)


def test_pictures_without_features_are_not_passed_over(questions, capsys):
    (questions / "images").mkdir()
    (questions / "images" / "7.JPG").touch()
    command = (
        f"--images {questions}/images --output {questions}/features.hdf5 --patches; or give "
        "--modalities question"
    )
    for more in ([], ["--unimodal"]):
        with pytest.raises(SystemExit):
            called(main, questions, *more)
        assert command in capsys.readouterr().err
    assert called(main, questions, "--modalities", "question")["epochs"] == 1
    assert called(main, questions, "--modalities", "question,words")["epochs"] == 1
    with h5py.File(questions / "features.hdf5", "w") as file:
        file["features"] = np.ones((90, 2, 3), np.float16)
        file["image_ids"] = np.array([*range(60), *range(1000, 1030)])
    assert small(vqa, questions).modalities == ("question", "image")


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ([], None),
        (["a.txt", "b/c.json"], None),
        (["a.png"], "."),
        (["images/a.jpeg"], "images"),
        (["images/train/a.jpg", "images/val/b.jpg"], "images"),
        (["train2014/a.jpg", "val2014/b.jpg"], "."),
    ],
)
def test_the_folder_of_the_pictures_is_found(tmp_path, made, found):
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_pictures(tmp_path) == (found and tmp_path / found)
    assert find_pictures(tmp_path / "nowhere") is None
