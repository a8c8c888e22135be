"""Answer vocabularies: the published choices, targets and accuracies against plain counting, and
nothing learnt from any part but the ones given."""

import pickle
import random
from collections import Counter

import numpy as np
import pytest

from deq_fusion.datasets.vqa.annotations import Part, read_part
from deq_fusion.datasets.vqa.answers import normalise, question_accuracy, score
from deq_fusion.datasets.vqa.vocabulary import AnswerVocabulary
from unit_tests.real_data import real

POOL = ["yes", "Yes!", "no", "two", "2", "t-shirt", "t shirt", "the dog", "dog", "a", "red,blue"]


def make_part(choices, answers=None, *, first_id=0):
    count = len(choices)
    answers = [[choice] * 10 for choice in choices] if answers is None else answers
    ids = np.arange(first_id, first_id + count)
    return Part(ids, ids, ["?"] * count, answers, ["other"] * count, list(choices))


@pytest.fixture
def part():
    """300 questions whose annotators agree more or less."""
    rng = random.Random(0)
    answers = [
        rng.choices(rng.sample(POOL, k=rng.randint(1, 6)) + ["rare"], k=10) for _ in range(300)
    ]
    answers += [["two"] * 10, ["a"] * 10, ["none of them"] * 10]
    return make_part([Counter(given).most_common(1)[0][0] for given in answers], answers)


@pytest.fixture(params=["mcan", "mutan"])
def protocol(request):
    return request.param


def test_mcan_counts_normalised_answers_that_occur_more_than_8_times():
    part = make_part(
        ["Two"] * 5
        + ["2."] * 4
        + ["a dog"] * 8
        + ["yes"] * 12
        + ["dog!"]
        + ["the"] * 9
        + ["cat"] * 8
    )
    vocabulary = AnswerVocabulary.fit(part)
    assert vocabulary.answers == ["yes", "", "2", "dog"]  # 12, and 9 each
    assert AnswerVocabulary.fit(part, min_count=10).answers == ["yes"]
    assert AnswerVocabulary.fit(part, most=2).answers == ["yes", ""]


def test_mutan_takes_the_2000_most_frequent_answers_as_written():
    choices = [f"Answer {row}" for row in range(2500) for _ in range(1 + (row % 7 == 0))]
    answers = AnswerVocabulary.fit(make_part(choices), protocol="mutan").answers
    counts = Counter(choices)
    twice, once = (sorted(key for key in counts if counts[key] == number) for number in (2, 1))
    assert answers == (twice + once)[:2000]
    few = make_part(["two", "2", "Two", "2"])
    assert AnswerVocabulary.fit(few, protocol="mutan").answers == ["2", "Two", "two"]


def test_ties_do_not_depend_on_the_order(part, protocol):
    rows = np.random.default_rng(0).permutation(len(part))
    first, again = (AnswerVocabulary.fit(p, protocol=protocol) for p in (part, part.take(rows)))
    assert first.answers == again.answers


def test_only_the_parts_given_are_learnt():
    train, other = make_part(["yes"] * 9 + ["no"] * 5), make_part(["no"] * 5 + ["maybe"] * 9)
    assert AnswerVocabulary.fit(train).answers == ["yes"]
    assert AnswerVocabulary.fit([train, other]).answers == ["no", "maybe", "yes"]
    vocabulary = AnswerVocabulary.fit(train)
    vocabulary.targets(other)
    assert vocabulary.answers == ["yes"] and len(vocabulary) == 1


def test_targets_are_the_soft_scores_and_the_official_accuracies(part, protocol):
    vocabulary = AnswerVocabulary.fit(part, protocol=protocol, min_count=2)
    answer, target, accuracy = vocabulary.targets(part)
    dense = np.zeros((2, len(part), len(vocabulary)))
    for row, given in enumerate(part.answers):
        for place, candidate in enumerate(vocabulary.answers):
            same = sum(normalise(a) == normalise(candidate) for a in given)
            dense[0, row, place] = [0, 0.3, 0.6, 0.9, 1][min(same, 4)]
            dense[1, row, place] = question_accuracy(candidate, given)
    found = np.zeros_like(dense)
    rows, columns = np.nonzero(answer >= 0)
    for index, values in enumerate((target, accuracy)):
        np.add.at(found[index], (rows, answer[rows, columns]), values[rows, columns])
        assert (values[answer < 0] == 0).all() and values.dtype == np.float32
    np.testing.assert_allclose(found, dense, atol=1e-6)
    assert answer.dtype == np.int64 and (answer[:, -1] >= 0).any()  # as wide as needed
    assert (dense[0] != dense[1]).any()  # the two differ in these questions
    assert ((answer >= 0) == (target + accuracy > 0)).all()
    assert (np.diff(target, axis=1) <= 0).all()  # the best first


def test_every_form_of_an_answer_is_right_where_answers_stay_as_written():
    vocabulary = AnswerVocabulary(["two", "red", "2"], normalised=False)
    targets = vocabulary.targets(make_part(["2"], [["2"] * 3 + ["Two"] * 2 + ["red"] * 5]))
    assert targets.answer.tolist() == [[1, 0, 2]]  # the most accurate first
    np.testing.assert_allclose(targets.target, [[1, 1, 1]])
    np.testing.assert_allclose(targets.accuracy, [[1, 0.9, 0.9]], rtol=1e-6)
    shares = vocabulary.sampling(make_part(["2"], [["2"] * 3 + ["Two"] * 2 + ["red"] * 5]))
    np.testing.assert_allclose(shares, [[5 / 8, 0, 3 / 8]])


def test_questions_that_no_answer_fits_are_empty_rows():
    targets = AnswerVocabulary(["yes"]).targets(make_part(["blue", "yes"]))
    assert targets.answer.tolist() == [[-1], [0]] and targets.target.tolist() == [[0], [1]]
    targets = AnswerVocabulary(["yes"]).targets(make_part(["blue"]))
    assert targets.answer.tolist() == [[-1]] and targets.accuracy.tolist() == [[0]]
    assert AnswerVocabulary(["yes"]).targets(make_part([])).answer.shape == (0, 1)


def test_mutan_samples_by_the_annotators_counts(part, protocol):
    vocabulary = AnswerVocabulary.fit(part, protocol=protocol, min_count=3)
    answer, shares = vocabulary.targets(part).answer, vocabulary.sampling(part)
    assert shares.shape == answer.shape and shares.dtype == np.float32
    for row, given in enumerate(part.answers):
        written = [normalise(a) if vocabulary.normalised else a for a in given]
        counts = [written.count(vocabulary.answers[p]) if p >= 0 else 0 for p in answer[row]]
        expected = np.array(counts) / max(sum(counts), 1)
        np.testing.assert_allclose(shares[row], expected, rtol=1e-6)
    assert {0, 1} <= set(shares.sum(axis=1).round(5).tolist())


def test_vocabularies_can_be_pickled(part, protocol):
    vocabulary = AnswerVocabulary.fit(part, protocol=protocol)
    again = pickle.loads(pickle.dumps(vocabulary))
    for found, expected in zip(again.targets(part), vocabulary.targets(part), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_wrong_arguments_are_refused(part):
    with pytest.raises(ValueError, match=r"one of \['mcan', 'mutan'\], got 'butd'"):
        AnswerVocabulary.fit(part, protocol="butd")
    with pytest.raises(ValueError, match="must be at least 1, got 0 and None"):
        AnswerVocabulary.fit(part, min_count=0)
    with pytest.raises(ValueError, match="must be at least 1, got 1 and -2"):
        AnswerVocabulary.fit(part, protocol="mutan", most=-2)
    with pytest.raises(ValueError, match="at least one, got 0 of which 0 differ; fit on more"):
        AnswerVocabulary.fit(make_part(["yes"]))
    with pytest.raises(ValueError, match="got 2 of which 1 differ"):
        AnswerVocabulary(["yes", "yes"])


@pytest.mark.slow
def test_the_answers_of_vqa_v2(protocol):
    folder = real("vqa/vqa2_text")
    train, test = (
        read_part(*(folder / f"{name}_{kind}.json.gz" for kind in ("questions", "annotations")))
        for name in ("train", "test")
    )
    vocabulary = AnswerVocabulary.fit(train, protocol=protocol)
    counts = Counter(
        normalise(answer) if protocol == "mcan" else answer for answer in train.multiple_choice
    )
    ranked = sorted(counts.values(), reverse=True)
    size = 2000 if protocol == "mutan" else sum(count > 8 for count in ranked)
    assert [counts[answer] for answer in vocabulary.answers] == ranked[:size]
    answer, _, accuracy = vocabulary.targets(test)
    best = {
        key: vocabulary.answers[places[np.argmax(values)]]
        for key, places, values in zip(test.question_ids.tolist(), answer, accuracy, strict=True)
    }
    reachable = 100 * accuracy.max(axis=1).mean(dtype=np.float64)
    assert score(best, test, digits=None)["overall"] == pytest.approx(reachable, rel=1e-5)
    assert 80 < reachable < 100 * (accuracy.max(axis=1) > 0).mean() < 100
    assert {"yes", "no"} == set(vocabulary.answers[:2])
