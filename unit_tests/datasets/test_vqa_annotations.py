"""VQA's questions and annotations: read as written, whatever their order; errors that name the
file. Small files of the real layout, and the real sets where they are."""

import gzip
import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from deq_fusion.datasets.vqa.annotations import ANSWER_TYPES, read_part, read_questions
from unit_tests.real_data import real

QUESTIONS, ANNOTATIONS = "val_questions.json", "val_annotations.json"


@pytest.fixture
def questions():
    """7 questions about 3 images, ids neither sorted nor close."""
    ids = [70, 3, 10**12, 5, 6, 41, 2]
    return [
        {"question_id": key, "image_id": row % 3 + 100, "question": f"What is {row}, café?"}
        for row, key in enumerate(ids)
    ]


@pytest.fixture
def annotations(questions):
    """In another order than the questions; the tenth annotator's answer is always empty."""
    return [
        {
            "question_id": question["question_id"],
            "image_id": question["image_id"],
            "question_type": "what is",
            "answer_type": ANSWER_TYPES[question["question_id"] % 3],
            "multiple_choice_answer": f"Most {question['question_id']}",
            "answers": [
                {
                    "answer": f"{place // 4}" * (place < 9),
                    "answer_confidence": "yes",
                    "answer_id": place,
                }
                for place in range(10)
            ],
        }
        for question in reversed(questions)
    ]


@pytest.fixture
def write(tmp_path, questions, annotations):
    """Writes both files as they are now, and returns their paths."""

    def write(ending=""):
        contents = {
            QUESTIONS: {"info": {}, "questions": questions},
            ANNOTATIONS: {"annotations": annotations, "license": {"name": "none"}},
        }
        paths = []
        for name, content in contents.items():
            text = json.dumps(content).encode()
            paths.append(tmp_path / (name + ending))
            paths[-1].write_bytes(gzip.compress(text) if ending else text)
        return paths

    return write


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_part_is_read_in_the_order_of_its_questions(write, questions, annotations, ending):
    part = read_part(*map(str, write(ending)))
    ids = [question["question_id"] for question in questions]
    found = {annotation["question_id"]: annotation for annotation in annotations}
    assert part.question_ids.tolist() == ids and part.question_ids.dtype == np.int64
    assert part.image_ids.tolist() == [question["image_id"] for question in questions]
    assert part.image_ids.dtype == np.int64 and len(part) == 7
    assert part.texts == [question["question"] for question in questions]
    assert part.answer_types == [found[key]["answer_type"] for key in ids]
    assert part.multiple_choice == [found[key]["multiple_choice_answer"] for key in ids]
    assert part.answers == [[answer["answer"] for answer in found[key]["answers"]] for key in ids]
    assert part.answers[0] == [*"000011112"[:9], ""]  # an empty answer is one too


def test_entries_that_are_not_asked_for_are_left_aside(write, questions, annotations):
    before = read_part(*write())
    for entry in (*questions, *annotations):
        entry |= {"answer": "yes", "confidence": {"answer": 3}}
    part = read_part(*write())
    assert part.texts == before.texts and part.answers == before.answers


def test_questions_are_read_without_answers(write, questions):
    part = read_questions(write()[0])
    assert part.texts == [question["question"] for question in questions]
    assert not hasattr(part, "answers")


def test_chosen_rows_stay_aligned(write):
    part = read_part(*write())
    rows = np.array([4, 0, 4])
    taken = part.take(rows)
    assert type(taken) is type(part) and len(taken) == 3
    for name in vars(part):
        expected = [getattr(part, name)[row] for row in rows]
        assert list(getattr(taken, name)) == expected
    assert len(part.take([])) == 0 and part.take([]).question_ids.dtype == np.int64
    assert read_questions(write()[0]).take([1]).texts == [part.texts[1]]


def test_a_missing_file_is_named(write, tmp_path):
    paths = write()
    paths[1].unlink()
    with pytest.raises(FileNotFoundError, match="no file .*val_annotations.json"):
        read_part(*paths)
    with pytest.raises(FileNotFoundError, match="no file .*nowhere.json.gz"):
        read_questions(tmp_path / "nowhere.json.gz")


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("index", [0, 1])
def test_a_file_cut_off_anywhere_is_named(write, ending, index):
    paths = write(ending)
    content = paths[index].read_bytes()
    kind = "gzipped JSON" if ending else "JSON"
    for length in (0, 1, 12, len(content) // 2, len(content) - 1):
        paths[index].write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"{paths[index].name} must be {kind}, but .* again"):
            read_part(*paths)


@pytest.mark.parametrize("content", [b"no gzip", b"\x1f\x8b\x08\x00garbage-garbage"])
def test_a_file_that_is_not_gzipped_is_named(write, content):
    paths = write(".gz")
    paths[0].write_bytes(content)
    with pytest.raises(ValueError, match="val_questions.json.gz must be gzipped JSON, but"):
        read_part(*paths)


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"annotations": []}', '{"questions": {}}', '{"questions": []}']
)
def test_a_file_of_another_layout_is_named(write, content):
    paths = write()
    paths[0].write_text(content)
    with pytest.raises(ValueError, match=r'val_questions.json must hold {"questions": \[...\]}'):
        read_part(*paths)


def test_questions_and_annotations_swapped_are_named(write):
    with pytest.raises(ValueError, match=r'val_annotations.json must hold {"questions"'):
        read_part(*reversed(write()))


@pytest.mark.parametrize("value", [None, "remove", 1.5, True])
@pytest.mark.parametrize("key", ["question_id", "image_id", "question"])
def test_a_question_without_an_entry_is_named(write, questions, key, value):
    questions[4][key] = value
    if value == "remove":
        del questions[4][key]
    with pytest.raises(ValueError, match=f"val_questions.json must have '{key}'.*; entry 4,"):
        read_part(*write())


@pytest.mark.parametrize(
    "key", ["question_id", "image_id", "answer_type", "multiple_choice_answer", "answers"]
)
def test_an_annotation_without_an_entry_is_named(write, annotations, key):
    del annotations[2][key]
    with pytest.raises(ValueError, match=f"val_annotations.json must have '{key}', of type"):
        read_part(*write())


def test_an_entry_that_is_no_object_is_named(write, annotations):
    annotations[3] = "yes"
    with pytest.raises(ValueError, match="val_annotations.json must have .* entry 3"):
        read_part(*write())


@pytest.mark.parametrize("given", [[], [{"answer": 2}], [{"answer_id": 1}], ["yes", None]])
def test_a_question_needs_answers(write, annotations, given):
    annotations[1]["answers"] = given
    key = annotations[1]["question_id"]
    with pytest.raises(ValueError, match=rf"answers in .*val_annotations.json .* {key} do not"):
        read_part(*write())


def test_a_repeated_question_is_named(write, questions):
    questions[2]["question_id"] = questions[5]["question_id"]
    with pytest.raises(ValueError, match="question_id in .*val_questions.json .* 41 occurs 2"):
        read_part(*write())


def test_a_repeated_annotation_is_named(write, annotations):
    annotations.append(annotations[0])
    with pytest.raises(ValueError, match="val_annotations.json .* question 2 has 2 annotations"):
        read_part(*write())


def test_questions_without_annotations_are_named(write, annotations):
    removed = [annotations.pop(1)["question_id"] for _ in range(2)][-1]
    with pytest.raises(ValueError, match=f"val_annotations.json .* 2 questions .* is {removed};"):
        read_part(*write())


def test_annotations_of_unknown_questions_are_named(write, questions):
    removed = questions.pop(3)["question_id"]
    with pytest.raises(ValueError, match=f"1 are of unknown questions, one of them {removed};"):
        read_part(*write())


def test_images_that_differ_are_named(write, annotations):
    annotations[-2]["image_id"] = 5
    with pytest.raises(ValueError, match="val_anno.*question 3 is about image 101 there .* 5 here"):
        read_part(*write())


def test_an_unknown_answer_type_is_answered_with_the_choices(write, annotations):
    annotations[0]["answer_type"] = "colour"
    with pytest.raises(ValueError, match=r"one of \['yes/no', 'number', 'other'\], got \['colou"):
        read_part(*write())


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**400], ids=["over", "under", "far"])
@pytest.mark.parametrize("key", ["question_id", "image_id"])
@pytest.mark.parametrize("index", [0, 1])
def test_ids_beyond_int64_are_named(write, questions, annotations, key, value, index):
    (questions, annotations)[index][2][key] = value
    paths = write()
    with pytest.raises(
        ValueError, match=f"every {key} in .*{paths[index].name} .* int64 .* entry 2,"
    ):
        read_part(*paths)
    for entry in (questions[2], annotations[4]):  # of one question, with ids that it holds
        entry["question_id"], entry["image_id"] = 2**63 - 1, -(2**63)
    for name in ("question_id", "image_id"):
        annotations[2][name] = questions[4][name]
    assert read_part(*write()).question_ids[2] == 2**63 - 1


def test_half_a_pair_of_surrogates_is_read_as_the_replacement_character(
    write, questions, annotations
):
    questions[1]["question"] = "what \ud83d?"
    found = next(a for a in annotations if a["question_id"] == questions[1]["question_id"])
    found["answers"][3]["answer"], found["answers"][4] = "\udc00 half", "\ud83d"
    found["multiple_choice_answer"] = "whole \U0001f600"
    part = read_part(*write())
    assert part.texts[1] == "what \ufffd?" and part.answers[1][3:5] == ["\ufffd half", "\ufffd"]
    assert part.multiple_choice[1] == "whole \U0001f600"
    for text in (*part.texts, *part.multiple_choice, *sum(part.answers, [])):
        text.encode()


def test_what_a_file_holds_does_not_reach_the_terminal(write, questions, annotations):
    said = []
    for entry, key, value in (
        (questions[0], "image_id", "\x1b[2J" * 1000),
        (annotations[0], "answer_type", "\x1b[2J" * 1000),
        (annotations[0], "answers", {"\x1b[2J": list(range(9999))}),
    ):
        before = entry[key]
        entry[key] = value
        with pytest.raises(ValueError, match=key) as error:
            read_part(*write())
        said.append(str(error.value))
        entry[key] = before
    assert all(text.isprintable() and len(text) < 600 for text in said)
    assert "of type str" in said[0] and "of type dict" in said[2]


def real_parts(name, parts):
    folder = real(f"vqa/{name}")
    paths = (
        [folder / f"{part}_{kind}.json.gz" for kind in ("questions", "annotations")]
        for part in parts
    )
    return [read_part(*pair) for pair in paths]


def shared_ids(parts, name):
    pairs = combinations([set(getattr(part, name).tolist()) for part in parts], 2)
    return [len(first & second) for first, second in pairs]


@pytest.mark.slow
def test_daquar_is_split_by_image():
    parts = real_parts("daquar", ("train", "val"))
    assert [len(part) for part in parts] == [6795, 5673]
    assert sum(len(set(part.image_ids.tolist())) for part in parts) == 1447
    assert shared_ids(parts, "question_ids") == shared_ids(parts, "image_ids") == [0]
    for part in parts:
        assert {len(given) for given in part.answers} == {10}
        assert set(part.answer_types) == {"number", "other"}


@pytest.mark.slow
def test_the_questions_of_vqa_v2_are_split_by_question():
    parts = real_parts("vqa2_text", ("train", "valid", "test"))
    assert [len(part) for part in parts] == [48061, 8977, 2962]
    assert shared_ids(parts, "question_ids") == [0, 0, 0]
    assert min(shared_ids(parts, "image_ids")) > 0  # its parts share images
    for part in parts:
        assert {len(given) for given in part.answers} == {10}
        types = Counter(part.answer_types)
        assert set(types) == set(ANSWER_TYPES)
        assert all(0.31 < count / len(part) < 0.36 for count in types.values())
        assert (part.question_ids // 1000 == part.image_ids).all()  # COCO's numbering
