"""VQA's official accuracy: published pairs and cases, rules worked out by hand,
and a second implementation that goes character by character and annotator by annotator."""

import hashlib
import json
import random
import re

import numpy as np
import pytest

from deq_fusion.datasets.vqa.annotations import Part
from deq_fusion.datasets.vqa.answers import (
    ARTICLES,
    CONTRACTIONS,
    NUMBERS,
    PUNCTUATION,
    accuracy_of_count,
    count_references,
    normalise,
    question_accuracy,
    read_results,
    score,
    warn_of_rule,
    write_results,
)

PAIRS = [
    ("", ""),
    ("Dog", "dog"),
    (" two\nsmall\tdogs ", "2 small dogs"),
    ("a cat and an owl on the roof", "cat and owl on roof"),
    ("the", ""),
    ("None", "0"),
    ("eleven", "eleven"),
    ("twenty-one", "twenty 1"),
    ("someone", "someone"),  # words are replaced, not parts of them
    ("left/right", "left right"),  # a mark between letters leaves a space
    ("left / right", "left right"),  # and one that touches a space nothing
    ("x-ray", "x ray"),
    ("x-ray -", "xray"),  # wherever else it stands
    ("x-ray /", "x ray"),  # but each mark decides for itself
    (" -left-right\n", "left right"),  # the spaces around an answer do not count
    ("1,000", "1000"),
    ("1,000-2,000", "10002000"),  # digit, comma, digit: every mark goes
    ("1, 2-3", "1 2 3"),
    ("no. 4.5", "no 4.5"),  # a period stays before a digit only
    (".5 or 5.", ".5 or 5"),
    ("u.s.a.", "usa"),
    ("a.m", "am"),  # periods go before articles do
    ("a,m", "m"),  # and a comma first leaves a word "a"
    ("it's", "it's"),  # apostrophes are no marks,
    ("#1: 50% & $5", "#1: 50% & $5"),  # nor are these
    ("Dont", "don't"),
    ("dont!", "don't"),
    ("somebody'd", "somebodyd"),  # as in the official table
    ("Im", "im"),  # whose entries with capitals never apply
    ("İ", "i̇"),
    ("broccoli, cheese, carrots, tomatoes", "broccoli cheese carrots tomatoes"),  # from VQA-v2
    ("meat, cheese, and vegetables", "meat cheese and vegetables"),
    ("july, 4 2009", "july 4 2009"),
    ("6/10/10", "6 10 10"),
    ("7-12-38", "7 12 38"),
    ("11,5 kg", "115 kg"),
    ("e=mc2", "e mc2"),
    ("_under_", "under"),
    ("7'4\"", "7'4"),
    ("what?!", "what"),
    ("3. 4", "3 4"),
    ("thats right", "that's right"),
    ("closest one to photo", "closest 1 to photo"),
]

FOODS = ["eggs", "hash browns", "potatoes", "lettuce", "ham"]
PUBLISHED = [  # what the official evaluation gives for ten answers of VQA-v2, as they are written
    ("white", ["child"] * 3 + ["kid"] * 3 + ["boy"] * 2 + ["wind", "little boy"], 0.0),
    ("the 15", ["12", "12", "7", "15", "lot", "20", "9", "6", "23", "lots"], 0.3),
    ("30", ["30", "30", "3", "28", "7", "20", "16", "12", "several", "10"], 0.6),
    ("COLE SLAW.", ["cole slaw"] * 3 + ["coleslaw"] * 2 + FOODS, 0.9),
    ("CAMERA.", ["camera"] * 4 + ["don't know"] * 2 + "something unknown human mouse".split(), 1.0),
]


def plain_unmark(text):
    """Punctuation, character by character."""
    grouped = any(
        text[i - 1].isdigit() and text[i] == "," and text[i + 1].isdigit()
        for i in range(1, len(text) - 1)
    )
    padded = "x" + text + "x"
    beside_a_space = {
        padded[i] for i in range(1, len(text) + 1) if " " in padded[i - 1] + padded[i + 1]
    }
    unmarked = ""
    for character in text:
        if character not in ';/[]"{}()=+\\_-><@`,?!':
            unmarked += character
        elif not grouped and character not in beside_a_space:
            unmarked += " "
    kept = ""
    for place, character in enumerate(unmarked):
        if character != "." or unmarked[place + 1 : place + 2].isdigit():
            kept += character
    return kept


def plain_normalise(answer):
    numbers = ["zero", *"one two three four five six seven eight nine ten".split()]
    words = []
    for word in plain_unmark(re.sub(r"[\n\t]", " ", answer).strip()).lower().split():
        if word in numbers:
            word = str(numbers.index(word))
        elif word == "none":
            word = "0"
        if word not in ("a", "an", "the"):
            words.append(CONTRACTIONS[word] if word in CONTRACTIONS else word)
    return " ".join(words)


def plain_accuracy(prediction, answers):
    """The mean over the annotators, one after the other."""
    prediction = plain_normalise(prediction)
    if any(answer != answers[0] for answer in answers):
        answers = [plain_unmark(answer) for answer in answers]
    shares = []
    for annotator in range(len(answers)):
        others = answers[:annotator] + answers[annotator + 1 :]
        shares.append(min(1, others.count(prediction) / 3))
    return sum(shares) / len(shares)


def random_answer(rng):
    words = ["a", "the", "Red", "two", "none", "ten", "dont", "youre", "it's", "cat", "10", "3"]
    joints = [" ", " ", ", ", ",", "-", " - ", "/", ".", ". ", "!", " ?", "\n", "(", ") ", "_", "&"]
    pieces = [rng.choice(words)]
    for _ in range(rng.randrange(5)):
        pieces += [rng.choice(joints), rng.choice(words)]
    return "".join(pieces) + rng.choice(["", "", "!", ".", " "])


def make_part(answers, types):
    count = len(answers)
    ids = np.arange(10, 10 + count)
    texts = ["?"] * count
    return Part(ids, ids // 3, texts, answers, types, [given[0] for given in answers])


@pytest.mark.parametrize(("answer", "expected"), PAIRS)
def test_answers_are_normalised_by_the_rules(answer, expected):
    assert normalise(answer) == expected == plain_normalise(answer)


@pytest.mark.parametrize(("prediction", "answers", "expected"), PUBLISHED)
def test_published_cases_agree(prediction, answers, expected):
    assert len(answers) == 10 and question_accuracy(prediction, answers) == expected


def test_the_tables_are_the_published_ones():
    """The official evaluation's contractions by their digest, the short tables as they stand."""
    table = json.dumps(CONTRACTIONS, sort_keys=True).encode()
    digest = "52771f672b95913f862aae058e42219f9e1e4d7af64475a5cdf394301acf67a9"
    assert (len(CONTRACTIONS), hashlib.sha256(table).hexdigest()) == (120, digest)
    assert ARTICLES == {"a", "an", "the"}
    assert PUNCTUATION == set(';/[]"{}()=+\\_-><@`,?!')
    digits = "zero one two three four five six seven eight nine ten".split()
    assert NUMBERS == {"none": "0", **{word: str(n) for n, word in enumerate(digits)}}


def test_generated_cases_agree_with_a_second_implementation():
    rng = random.Random(0)
    met = set()
    for _ in range(1000):
        pool = [random_answer(rng) for _ in range(rng.randint(1, 4))]
        pool += [plain_normalise(answer) for answer in pool]
        answers = rng.choices(pool, k=10)
        prediction = rng.choice(pool)
        assert normalise(prediction) == plain_normalise(prediction)
        accuracy = question_accuracy(prediction, answers)
        assert accuracy == pytest.approx(plain_accuracy(prediction, answers), abs=1e-12)
        met.add(accuracy)
    assert met == {0, 0.3, 0.6, 0.9, 1}


@pytest.mark.parametrize("annotators", [2, 3, 5, 10])
def test_the_accuracy_of_a_count_is_the_mean_over_the_annotators(annotators):
    for count in range(annotators + 1):
        answers = ["yes"] * count + ["no"] * (annotators - count)
        expected = plain_accuracy("yes", answers)
        assert accuracy_of_count(count, annotators) == pytest.approx(expected, abs=1e-12)
        assert question_accuracy("Yes!", answers) == accuracy_of_count(count, annotators)


def test_annotators_answers_lose_punctuation_only_where_they_differ():
    assert count_references(["t-shirt"] * 10) == {"t-shirt": 10}
    assert question_accuracy("t-shirt", ["t-shirt"] * 10) == 0  # officially so
    mixed = ["t-shirt"] * 3 + ["t shirt"] * 3 + ["the shirt"] * 3 + ["two"]
    assert count_references(mixed) == {"t shirt": 6, "the shirt": 3, "two": 1}
    assert question_accuracy("t-shirt", mixed) == 1
    assert question_accuracy("the shirt", mixed) == question_accuracy("two", mixed) == 0


def test_a_question_without_answers_is_refused():
    with pytest.raises(ValueError, match="must hold an annotator's answer at least, got none"):
        question_accuracy("yes", [])


def test_the_score_is_the_mean_of_each_type_and_of_all():
    rng = random.Random(1)
    answers = [[rng.choice(["yes", "no", "2", "red"]) for _ in range(10)] for _ in range(67)]
    types = [rng.choice(["yes/no", "number", "other"]) for _ in answers]
    part = make_part(answers, types)
    predictions = {key: rng.choice(["Yes", "no.", "two", "red"]) for key in range(76, 9, -1)}
    exact = score(predictions, part, digits=None)
    accuracies = np.array(
        [plain_accuracy(predictions[10 + row], given) for row, given in enumerate(answers)]
    )
    masks = {kind: np.array(types) == kind for kind in set(types)} | {"overall": slice(None)}
    expected = {name: 100 * accuracies[mask].mean() for name, mask in masks.items()}
    assert exact == pytest.approx(expected)
    rounded = score(predictions, part)
    assert rounded == {name: round(value, 2) for name, value in exact.items()} != exact


def test_types_that_do_not_occur_have_no_score():
    part = make_part([["red"] * 10, ["blue"] * 10], ["other", "other"])
    assert score({10: "red", 11: "red"}, part) == {"overall": 50, "other": 50}


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({10: "red"}, "2 questions.*: 1 are missing and 0 belong.*first is question 11"),
        ({10: "", 11: "", 5: "", 4: ""}, "0 are missing and 2 belong.*first is question 4"),
        ({}, "2 are missing"),
    ],
)
def test_predictions_must_be_for_the_part(predictions, message):
    with pytest.raises(ValueError, match=message):
        score(predictions, make_part([["red"], ["red"]], ["other", "other"]))
    with pytest.raises(ValueError, match="0 questions, at least one"):
        score({}, make_part([], []))


def test_results_are_written_as_the_evaluation_takes_them(tmp_path):
    path = tmp_path / "results.json"
    predictions = {np.int64(7): "2", 3: "caf\u00e9", 5: ""}
    write_results(path, {1: "an older file"})
    write_results(path, predictions)
    assert json.loads(path.read_bytes()) == [
        {"question_id": 7, "answer": "2"},
        {"question_id": 3, "answer": "caf\u00e9"},
        {"question_id": 5, "answer": ""},
    ]
    assert read_results(path) == predictions
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_half_a_pair_of_surrogates_is_written_as_the_replacement_character(tmp_path):
    path = tmp_path / "results.json"
    write_results(path, {1: "cut off \ud83d", 2: "whole \U0001f600"})
    assert read_results(path) == {1: "cut off \ufffd", 2: "whole \U0001f600"}


@pytest.mark.parametrize(
    ("key", "answer"),
    [(2.5, "no"), ("2", "no"), (True, "no"), (2, None), (2, b"no"), (2, 3), ("\x1b[2J", "no")],
)
def test_results_that_cannot_be_written_leave_the_old_file(tmp_path, key, answer):
    path = tmp_path / "results.json"
    write_results(path, {1: "yes"})
    with pytest.raises(ValueError, match="must map whole numbers .* to texts, got") as error:
        write_results(path, {1: "no", key: answer} if key is not True else {key: answer})
    assert read_results(path) == {1: "yes"} and "\x1b" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_a_single_answer_is_right_or_wrong():
    cases = {("two!", "2"): 1, ("The Cat", "cat"): 1, ("cat", "the cat"): 1, ("dog", "cat"): 0}
    for (prediction, answer), expected in cases.items():
        assert question_accuracy(prediction, [answer]) == expected
        assert (plain_normalise(prediction) == plain_normalise(answer)) == bool(expected)
    assert [accuracy_of_count(count, 1) for count in (0, 1)] == [0, 1]
    assert question_accuracy("two", ["two"]) == 1 and question_accuracy("two", ["two"] * 10) == 0
    with pytest.warns(UserWarning, match="2 of the 2 questions of the part have one answer"):
        assert score({10: "red", 11: "no"}, make_part([["red"], ["yes"]], ["other", "other"])) == {
            "overall": 50,
            "other": 50,
        }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([["yes"], ["no"] * 10], "1 of the 2 questions of the part have one answer"),
        ([["yes"] * 3, ["a", "b"]], "2 of the 2 .* two or three answers.* 1/3 or 2/3"),
        ([["U.S."] * 10], r"1 of the 1 .* only be answered wrong.* 'U.S.', .* compared as 'us';"),
        ([["two\x1b!"] * 10] * 3, r"3 of the 3 .* as 'two\\x1b!', which"),
    ],
)
def test_where_the_official_rule_does_not_fit_a_set_it_says_so(given, message):
    with pytest.warns(UserWarning, match=message):
        warn_of_rule("the part", given)


def test_the_official_rule_is_silent_of_sets_like_vqa_v2():
    rare = [["two"] * 10] + [["red"] * 10] * 99  # one in a hundred cannot be answered
    warn_of_rule("the part", [*rare, ["a", "b", "c", "d"], ["a"] * 4, ["a"] * 5 + ["b"] * 5])
    warn_of_rule("the part", [])


def test_a_prediction_that_is_no_text_is_refused():
    for prediction in (None, 2, b"red"):
        with pytest.raises(ValueError, match="a predicted answer must be a text, got"):
            question_accuracy(prediction, ["red"] * 10)


@pytest.mark.parametrize(
    "content",
    ["{}", "[1]", '[{"question_id": "1", "answer": "yes"}]', '[{"question_id": 1}]'],
)
def test_results_of_another_layout_are_named(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"results.json must hold a list of \{\"question_id\""):
        read_results(path)


def test_damaged_or_repeated_results_are_named(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('[{"question_id": 1, "ans')
    with pytest.raises(ValueError, match="results.json must be JSON, but Unterminated"):
        read_results(path)
    path.write_text(json.dumps([{"question_id": key, "answer": "a"} for key in (1, 2, 2)]))
    with pytest.raises(ValueError, match="results.json must answer every .*, question 2 is"):
        read_results(path)
    with pytest.raises(FileNotFoundError, match="no file .*other.json"):
        read_results(tmp_path / "other.json")
