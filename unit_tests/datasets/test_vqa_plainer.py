"""Sets plainer than VQA-v2: test without answers, one answer a question, none in the vocabulary,
features that the dtype cannot hold. They work, or are refused before anything is trained."""

import h5py
import numpy as np
import pytest
import torch

from deq_fusion.datasets.vqa.annotations import (
    PUBLISHED,
    Part,
    Questions,
    find_questions,
    lacks_answers,
)
from deq_fusion.datasets.vqa.get_data import get_dataloader, question_loader, read_parts
from unit_tests.datasets import test_vqa

made, folder = test_vqa.made, test_vqa.folder  # its fixtures
gather, load, write_part = test_vqa.gather, test_vqa.load, test_vqa.write_part


def rewrite(folder, made, parts=("train", "valid", "test"), **changes):
    for part in parts:
        write_part(folder, part, [entry | changes for entry in made[part]])


@pytest.mark.parametrize("tokenise", ["mcan", "mutan"])
@pytest.mark.parametrize("whose", ["train", "all"])
def test_test_without_answers_is_served(folder, made, tokenise, whose):
    options = {"tokenise": tokenise, "words": whose, "answers": whose}
    answered = load(folder, **options)
    (folder / "test_annotations.json").unlink()
    assert lacks_answers(folder)
    parts = read_parts(folder)
    assert [type(part) for part in parts] == [Part, Part, Questions]
    loaders = load(folder, **options)
    for before, loader in zip(answered, loaders, strict=True):
        torch.manual_seed(0)
        (questions, images), expected = gather(before)
        torch.manual_seed(0)
        (found, regions), truth = gather(loader)
        assert torch.equal(found, questions) and torch.equal(regions, images)
        torch.testing.assert_close(truth["question_id"], expected["question_id"], rtol=0, atol=0)
    assert set(truth) == {"question_id"} and len(found) == len(made["test"])


def test_train_and_test_without_answers_have_validation_cut_from_train(folder, made):
    for name in ("valid_questions", "valid_annotations", "test_annotations"):
        (folder / f"{name}.json").unlink()
    parts = read_parts(folder, valid_share=0.2)
    assert [len(part) for part in parts] == [48, 12, len(made["test"])]
    assert type(parts[2]) is Questions


def test_annotations_are_needed_of_what_is_learnt_or_selected_on(folder):
    for name in ("valid_annotations", "test_questions"):
        path = folder / f"{name}.json"
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(
            FileNotFoundError, match="which needs its questions and its annotations"
        ):
            read_parts(folder)
        path.write_bytes(content)
    assert not lacks_answers(folder)


def test_the_published_questions_of_test_change_no_split(tmp_path, made):
    for part, name in (("train", "train"), ("valid", "val")):
        write_part(tmp_path, name, made[part], official=True)
    before = read_parts(tmp_path, valid_share=0.2)
    with pytest.raises(
        FileNotFoundError, match="no questions of test in .* nor v2_OpenEnded_.*2015"
    ):
        find_questions(tmp_path, "test")
    (folder := tmp_path / "more").mkdir()
    write_part(folder, "test", made["test"])
    for name in ("test", "test-dev"):
        path = tmp_path / PUBLISHED.format(part=name)
        path.write_bytes((folder / "test_questions.json").read_bytes())
        assert find_questions(tmp_path, name) == path
    for part, again in zip(before, read_parts(tmp_path, valid_share=0.2), strict=True):
        np.testing.assert_array_equal(part.question_ids, again.question_ids)
    assert not lacks_answers(tmp_path)


def test_a_file_of_questions_is_served_as_a_part_is(folder):
    loaders = load(folder, tokenise="mutan", length=5, regions=2, dtype=torch.float16)
    more = question_loader(loaders[0].dataset, folder / "test_questions.json", batch_size=7)
    (questions, images), truth = gather(more)
    (expected, regions), answered = gather(loaders[2])
    assert torch.equal(questions, expected) and torch.equal(images, regions)
    assert images.dtype == torch.float16 and questions.shape[1] == 5
    assert torch.equal(truth["question_id"], answered["question_id"]) and len(truth) == 1


@pytest.mark.parametrize("tokenise", ["mcan", "mutan"])
def test_one_answer_a_question_works(folder, made, tokenise):
    for part, entries in made.items():
        for entry in entries:
            entry["answers"] = [entry["multiple_choice_answer"]]
        write_part(folder, part, entries)
    with pytest.warns(UserWarning, match="have one answer: .* 1 if .* else 0") as warned:
        loaders = load(folder, tokenise=tokenise)
    assert [str(warning.message).split(" of ")[0] for warning in warned] == ["60", "15", "18"]
    assert loaders[0].dataset.dropped == 0
    for loader in loaders:
        truth = loader.dataset.truth
        for name in ("target", "accuracy", *(["share"] if tokenise == "mutan" else [])):
            torch.testing.assert_close(
                truth[name][:, 0], torch.ones(len(loader.dataset)), rtol=0, atol=0
            )
            assert not truth[name][:, 1:].any()


def test_answers_that_are_always_scored_0_are_said(folder, made):
    rewrite(folder, made, answers=["U.S."] * 10, multiple_choice_answer="U.S.")
    with pytest.warns(UserWarning, match="of .*_annotations.json can only be answered wrong"):
        loaders = load(folder)
    assert not loaders[2].dataset.truth["accuracy"].any()
    rewrite(folder, made, answers=["us"] * 10, multiple_choice_answer="us")  # what it says to do
    assert load(folder)[2].dataset.truth["accuracy"].eq(1).all()


@pytest.mark.parametrize("tokenise", ["mcan", "mutan"])
@pytest.mark.parametrize("drop", [True, False])
def test_nothing_to_learn_is_an_error(folder, made, tokenise, drop):
    rewrite(folder, made, multiple_choice_answer="A")
    for entry in made["train"]:
        assert "A" not in entry["answers"]
    with pytest.raises(
        ValueError, match="all 60 questions of train .* among no question's answers"
    ):
        load(folder, tokenise=tokenise, drop_unanswerable=drop)


def test_nothing_to_score_is_said(folder, made):
    rewrite(folder, made, parts=["valid"], answers=["rare"] * 10, multiple_choice_answer="rare")
    message = (
        "every prediction for the 15 questions of valid scores 0: .* the answers of 15 of them"
    )
    with pytest.warns(UserWarning, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(1e39, torch.float32), (-1e300, torch.float32), (7e4, torch.float16), (1e300, torch.bfloat16)],
)
def test_features_that_the_dtype_cannot_hold_are_named(folder, value, dtype):
    with h5py.File(folder / "features.hdf5", "a") as file:
        features = file["features"][:].astype(np.float64)
        features[np.flatnonzero(file["image_ids"][:] == 102)[0], 1, 1] = value
        del file["features"]
        file["features"] = features
    _, valid, test = load(folder, dtype=dtype)
    gather(test)
    with pytest.raises(
        ValueError, match=f"must lie within .* as {dtype} does, .* of image 102 do not"
    ):
        gather(valid)
    gather(load(folder, dtype=torch.float64)[1])  # which holds it


def test_the_dtype_must_be_floating(folder):
    with pytest.raises(ValueError, match="dtype must be floating, got torch.int64"):
        get_dataloader(folder, dtype=torch.int64)
