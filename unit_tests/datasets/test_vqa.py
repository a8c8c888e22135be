"""VQA's loaders: batches against a second reading of the JSON, validation cut by image, what is
fitted sees train only, and the real sets where they are."""

import gzip
import json
from collections import Counter

import h5py
import numpy as np
import pytest
import torch

from deq_fusion.datasets.loaders import grouped_split
from deq_fusion.datasets.vqa.annotations import OFFICIAL, find_parts
from deq_fusion.datasets.vqa.features import find_features
from deq_fusion.datasets.vqa.get_data import get_dataloader, read_parts
from unit_tests.real_data import real

TYPES = "yes/no", "number", "other"
ANSWERS = {"yes/no": ["yes", "no"], "number": ["2", "3", "4"], "other": ["red", "cat", "a tree"]}
DIM, REGIONS = 4, 3


def make_questions(images, *, seed, start):
    """Three questions an image, one of each type, with ten answers; a word names the image."""
    rng = np.random.default_rng(seed)
    made = []
    for number, image in enumerate(np.repeat(images, 3).tolist()):
        kind = TYPES[number % 3]
        answers = rng.choice(ANSWERS[kind], size=10).tolist()
        made.append(
            {
                "question_id": start + number,
                "image_id": image,
                "question": f"What is word{image} in part{start}?",
                "answer_type": kind,
                "answers": answers,
                "multiple_choice_answer": Counter(answers).most_common(1)[0][0],
            }
        )
    return made


def write_part(folder, part, made, *, official=False, zipped=False):
    asked = ("question_id", "image_id", "question")
    questions = [{key: entry[key] for key in asked} for entry in made]
    annotations = [
        {key: value for key, value in entry.items() if key != "question"}
        | {"answers": [{"answer": text, "answer_id": k} for k, text in enumerate(entry["answers"])]}
        for entry in made
    ]
    for kind, entries in {"questions": questions, "annotations": annotations}.items():
        pattern = OFFICIAL[kind] if official else "{part}_{kind}.json"
        path = folder / (pattern.format(part=part, kind=kind) + ".gz" * zipped)
        content = json.dumps({kind: entries}).encode()
        path.write_bytes(gzip.compress(content) if zipped else content)


@pytest.fixture
def made():
    return {
        "train": make_questions(np.arange(20), seed=0, start=1000),
        "valid": make_questions(np.arange(100, 105), seed=1, start=2000),
        "test": make_questions(np.arange(200, 206), seed=2, start=3000),
    }


@pytest.fixture
def folder(tmp_path, made):
    """All three parts, and features of every image."""
    for part, entries in made.items():
        write_part(tmp_path, part, entries)
    ids = np.unique([entry["image_id"] for entries in made.values() for entry in entries])
    write_features(tmp_path / "features.hdf5", ids)
    return tmp_path


def write_features(path, ids):
    """Feature (r, c) of image i is i + r / 4 + c / 16: exact in float16."""
    rows, columns = np.meshgrid(np.arange(REGIONS) / 4, np.arange(DIM) / 16, indexing="ij")
    with h5py.File(path, "w") as file:
        file["features"] = (ids[:, None, None] + rows + columns).astype(np.float16)
        file["image_ids"] = ids


def load(folder, **options):
    return get_dataloader(folder, **{"min_count": 1, "batch_size": 8} | options)


def gather(loader):
    """All of a loader's batches as one: (inputs, truth)."""
    *inputs, truths = zip(*loader, strict=True)
    truth = {name: torch.cat([batch[name] for batch in truths]) for name in truths[0]}
    return [torch.cat(column) for column in inputs], truth


def assert_same(one, other):
    (inputs, truth), (others, other_truth) = gather(one), gather(other)
    for a, b in zip([*inputs, *truth.values()], [*others, *other_truth.values()], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_batches_hold_what_the_files_say(folder, made):
    loaders = load(folder)
    for loader, part in zip(loaders, made, strict=True):
        (questions, images), truth = gather(loader)
        entries = {entry["question_id"]: entry for entry in made[part]}
        assert sorted(truth["question_id"].tolist()) == sorted(entries)
        answers, words = loader.dataset.answers.answers, loader.dataset.vocabulary.words
        for row, question_id in enumerate(truth["question_id"].tolist()):
            entry = entries[question_id]
            expected = entry["question"].lower().rstrip("?").split()
            got = [words[number - 2] if number > 1 else None for number in questions[row] if number]
            known = part == "train"  # a question's last two words name its image and its part
            assert got == (expected if known else [*expected[:2], None, "in", None])
            assert images[row, 1, 2] == entry["image_id"] + 1 / 4 + 2 / 16
            assert TYPES[truth["type"][row]] == entry["answer_type"]
            counts = Counter(entry["answers"])
            for answer, target in zip(truth["answer"][row], truth["target"][row], strict=True):
                if answer >= 0:
                    text = answers[answer]
                    written = "a tree" if text == "tree" else text
                    assert target == pytest.approx(min(0.3 * counts[written], 1))
                else:
                    assert target == 0


def test_shapes_and_dtypes(folder):
    loaders = load(folder)
    widths = set()
    for loader in loaders:
        question, image, truth = next(iter(loader))
        assert question.shape == (8, 14) and question.dtype == torch.int64
        assert image.shape == (8, REGIONS, DIM) and image.dtype == torch.float32
        shapes = {name: (column.dtype, column.ndim) for name, column in truth.items()}
        assert shapes == {
            "answer": (torch.int64, 2),
            "target": (torch.float32, 2),
            "accuracy": (torch.float32, 2),
            "type": (torch.int64, 1),
            "question_id": (torch.int64, 1),
        }
        widths |= {truth[name].shape for name in ("answer", "target", "accuracy")}
        dataset = loader.dataset
        assert dataset.widths == {"question": 14, "image": DIM} and dataset.regions == REGIONS
        assert question.max() < dataset.words and truth["answer"].max() < len(dataset.answers)
    assert len(widths) == 1  # one K for all parts


def test_modalities_come_in_the_order_asked_for(folder):
    for order in (("image", "question"), ["question"], ("image",)):
        *inputs, truth = next(iter(load(folder, modalities=order)[1]))
        kinds = {torch.int64: "question", torch.float32: "image"}
        assert [kinds[column.dtype] for column in inputs] == list(order)
        assert set(truth) >= {"answer", "type"}
    (folder / "features.hdf5").unlink()
    load(folder, modalities=("question",))  # needs no images


def test_options_of_the_images(folder):
    image = next(iter(load(folder, modalities=("image",), dtype=torch.float16)[1]))[0]
    assert image.dtype == torch.float16
    image = next(iter(load(folder, modalities=("image",), regions=5)[1]))[0]
    assert image.shape == (8, 5, DIM) and (image[:, REGIONS:] == 0).all()
    moved = folder / "features"
    moved.mkdir()
    assert find_features(folder) == folder
    (folder / "features.hdf5").rename(moved / "all.h5")
    assert find_features(folder) == moved and find_features(moved / "none") is None
    assert_same(load(folder)[1], load(folder, features=moved / "all.h5")[1])


def test_tokenisers_have_their_own_lengths(folder):
    for tokenise, length in {"mcan": 14, "mutan": 26}.items():
        question, _, truth = next(iter(load(folder, tokenise=tokenise)[2]))
        assert question.shape[1] == length
        assert ("share" in truth) == (tokenise == "mutan")
    assert next(iter(load(folder, length=3)[2]))[0].shape[1] == 3


def test_workers_change_nothing(folder):
    for alone, helped in zip(load(folder), load(folder, workers=2), strict=True):
        torch.manual_seed(7)
        first = gather(alone)
        torch.manual_seed(7)
        second = gather(helped)
        for a, b in zip(first[0], second[0], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert first[1]["question_id"].tolist() == second[1]["question_id"].tolist()


def test_only_train_is_shuffled(folder):
    train, valid, test = load(folder)
    for loader in (valid, test):
        assert (
            gather(loader)[1]["question_id"].tolist() == loader.dataset.part.question_ids.tolist()
        )
    orders = [gather(train)[1]["question_id"].tolist() for _ in range(2)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def rewrite(folder, part, made, **changes):
    write_part(folder, part, [entry | changes for entry in made[part]])


@pytest.mark.filterwarnings("ignore:every prediction for the .* scores 0:UserWarning")
def test_vocabularies_are_fitted_on_train_only(folder, made):
    def fitted(**options):
        dataset = load(folder, modalities=("question",), **options)[0].dataset
        return dataset.vocabulary.words, dataset.answers.answers

    before, all_before = fitted(), fitted(words="all", answers="all")
    for part in ("valid", "test"):
        rewrite(
            folder, part, made,
            question="entirely new words", multiple_choice_answer="novel", answers=["novel"] * 10,
        )  # fmt: skip
    assert fitted() == before
    words, answers = fitted(words="all", answers="all")
    assert set(words) - set(all_before[0]) == {"entirely", "new", "words"}
    assert set(answers) - set(before[1]) == {"novel"}
    assert "novel" in fitted(answers="train+valid")[1]
    rewrite(folder, "train", made, question="other words")
    assert fitted() != before  # the test can tell


def test_unanswerable_questions_leave_train_only(folder, made):
    for part, entries in made.items():
        entries[4] |= {"answers": [f"rare {k} {part}" for k in range(10)]}
        entries[4]["multiple_choice_answer"] = "rare 0"
        write_part(folder, part, entries)
    loaders = load(folder, min_count=2)
    counts = [len(entries) for entries in made.values()]
    assert [len(loader.dataset) for loader in loaders] == [counts[0] - 1, *counts[1:]]
    assert [loader.dataset.dropped for loader in loaders] == [1, 0, 0]
    kept = gather(loaders[0])[1]
    assert 1004 not in kept["question_id"] and (kept["target"] > 0).any(dim=1).all()
    loaders = load(folder, min_count=2, drop_unanswerable=False)
    assert [len(loader.dataset) for loader in loaders] == counts


def test_mutan_learns_only_from_answers_as_they_are_written(folder, made):
    # "Yes!" is as right as "yes" once predicted, but there is none of it to draw.
    made["train"][0] |= {"answers": ["Yes!"] * 10, "multiple_choice_answer": "Yes!"}
    write_part(folder, "train", made["train"])
    datasets = [load(folder, tokenise=name, min_count=2)[0].dataset for name in ("mcan", "mutan")]
    assert [dataset.dropped for dataset in datasets] == [0, 1]
    assert datasets[1].truth["share"].sum(dim=1).numpy() == pytest.approx(1)


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_with_train_and_val_validation_is_cut_from_train_by_image(tmp_path, made, official, zipped):
    write_part(tmp_path, "train", made["train"], official=official, zipped=zipped)
    write_part(tmp_path, "val", made["test"], official=official, zipped=zipped)
    for seed in range(3):
        parts = read_parts(tmp_path, valid_share=0.2, split_seed=seed)
        images = [set(part.image_ids.tolist()) for part in parts]
        assert [len(ids) for ids in images] == [16, 4, 6]
        assert not (images[0] & images[1] or images[0] & images[2] or images[1] & images[2])
        assert len(parts[0]) + len(parts[1]) == len(made["train"])
        assert parts[2].question_ids.tolist() == [entry["question_id"] for entry in made["test"]]


def test_the_split_seed_alone_decides_the_split():
    ids = np.repeat(np.arange(50), 2)[::-1]
    splits = [grouped_split(ids, share=0.3, seed=seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(splits[0][1], splits[1][1])
    assert set(splits[0][1]) != set(splits[2][1])
    kept, held = splits[0]
    assert sorted([*kept, *held]) == list(range(100)) and len(held) == 30


def test_a_question_of_two_parts_is_named(folder, made):
    write_part(folder, "valid", made["valid"] + [made["test"][2]])
    with pytest.raises(ValueError, match="question 3002 is in .*valid_.* and in .*test_"):
        read_parts(folder)


def test_missing_parts_are_named(tmp_path, made):
    with pytest.raises(FileNotFoundError, match=r"train and of val.*got those of \[\].*prepare"):
        read_parts(tmp_path)
    write_part(tmp_path, "train", made["train"])
    with pytest.raises(FileNotFoundError, match=r"got those of \['train'\]"):
        read_parts(tmp_path)
    write_part(tmp_path, "val", made["valid"])
    (tmp_path / "val_annotations.json").unlink()
    with pytest.raises(FileNotFoundError, match="only .*val_questions.json of val, which needs"):
        read_parts(tmp_path)


def test_ambiguous_files_are_named(folder, made):
    write_part(folder, "val", made["valid"])
    with pytest.raises(ValueError, match="at most three parts, got .*; move valid or val away"):
        find_parts(folder)
    write_part(folder, "train", made["train"], official=True)
    with pytest.raises(ValueError, match="questions of train must be one file, got .*move one"):
        find_parts(folder)


def test_truncated_files_are_named(folder, made):
    path = folder / "test_questions.json"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="test_questions.json must be JSON"):
        load(folder)
    path.unlink()
    write_part(folder, "test", made["test"], zipped=True)
    for name in ("test_annotations.json", "test_questions.json"):
        (folder / name).unlink(missing_ok=True)
    path = folder / "test_annotations.json.gz"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="test_annotations.json.gz must be gzipped JSON"):
        load(folder)


def test_images_without_features_are_named_at_once(folder):
    write_features(folder / "features.hdf5", np.arange(104))  # lacks 104 and test's
    with pytest.raises(ValueError, match="features.hdf5 .* 1 have no .* first is image 104"):
        load(folder)
    (folder / "features.hdf5").unlink()
    with pytest.raises(FileNotFoundError, match="no image features in .*extract_features"):
        load(folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_features_that_are_not_finite_are_named(folder, workers):
    with h5py.File(folder / "features.hdf5", "r+") as file:
        file["features"][np.flatnonzero(file["image_ids"][:] == 102)[0], 1, 1] = np.nan
    _, valid, test = load(folder, workers=workers)
    gather(test)
    with pytest.raises(ValueError, match="features.hdf5 must be finite, those of image 102"):
        gather(valid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("image", "text")}, r"out of \['question', 'image'\], got \['image', 't"),
        ({"modalities": ()}, "modalities must be different names"),
        ({"modalities": ("image", "image")}, "modalities must be different names"),
        ({"tokenise": "bert"}, r"tokenise must be one of \['mcan', 'mutan'\], got 'bert'"),
        ({"protocol": "vilt"}, r"protocol must be one of \['mcan', 'mutan'\], got 'vilt'"),
        ({"answers": "test"}, r"answers must be one of \['train', 'train\+valid', 'all'\]"),
        ({"words": "none"}, r"words must be one of .*got 'none'"),
        ({"min_count": 0}, "min_count"),
        ({"min_count": 10**6}, "at least one"),
    ],
)
def test_wrong_options_are_answered_with_the_choices(folder, options, message):
    with pytest.raises(ValueError, match=message):
        load(folder, **options)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_valid_share_must_lie_between_0_and_1(share):
    with pytest.raises(ValueError, match="valid_share must lie between 0 and 1, got"):
        grouped_split(np.arange(9), share=share, seed=0)
    with pytest.raises(ValueError, match="puts 0 of 9 into validation"):
        grouped_split(np.arange(9), share=0.01, seed=0)


def counted(path, part):
    """The second reading: (questions, images) of a part."""
    entries = json.loads(gzip.decompress((path / f"{part}_questions.json.gz").read_bytes()))
    images = [entry["image_id"] for entry in entries["questions"]]
    return len(images), set(images)


@pytest.mark.slow
def test_the_real_daquar():
    path = real("vqa/daquar")
    with pytest.warns(UserWarning, match="can only be answered wrong") as warned:
        train, valid, test = get_dataloader(path, modalities=("question",), drop_unanswerable=False)
    assert [str(w.message).split()[0] for w in warned] == ["1,074", "829"]
    sizes = [len(loader.dataset) for loader in (train, valid, test)]
    images = [set(loader.dataset.part.image_ids.tolist()) for loader in (train, valid, test)]
    whole, all_images = counted(path, "train")
    assert (whole, sizes[2]) == (6795, 5673) and sizes[0] + sizes[1] == whole
    assert images[0] | images[1] == all_images and not images[0] & images[1]
    assert len(images[1]) == round(0.1 * len(all_images)) and images[2] == counted(path, "val")[1]
    assert not images[2] & all_images
    with pytest.warns(UserWarning, match="by the official rule no prediction matches"):
        answerable = get_dataloader(path, modalities=("question",))[0].dataset
    assert 0 < answerable.dropped == sizes[0] - len(answerable)


@pytest.mark.slow
def test_the_real_vqa2_text():
    path = real("vqa/vqa2_text")
    loaders = get_dataloader(path, modalities=("question",), batch_size=512)
    sizes = [len(loader.dataset) + loader.dataset.dropped for loader in loaders]
    assert sizes == [counted(path, part)[0] for part in ("train", "valid", "test")]
    assert sizes == [48061, 8977, 2962]
    for loader in loaders:
        dataset = loader.dataset
        assert dataset.truth["target"].shape == dataset.truth["accuracy"].shape
        assert 0 <= dataset.truth["accuracy"].min() and dataset.truth["accuracy"].max() == 1
        assert dataset.tokens.max() < dataset.words and (dataset.tokens[:, 0] > 0).all()
    # The best that the vocabulary allows, in the reported part: most questions can be answered.
    assert 0.8 < loaders[2].dataset.truth["accuracy"].max(dim=1).values.mean() < 1
