"""The official accuracy of VQA (Antol et al., 2015), and its file of results.

A predicted answer is compared with those of ten annotators. With c of them agreeing it counts
0, 0.3, 0.6, 0.9 and 1 for c = 0, 1, 2, 3 and 4 or more: the mean over the annotators of
min(1, how many of the others agree / 3).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..files.json_files import read_json, write_json
from .annotations import Part
from .tables import ARTICLES, CONTRACTIONS, NUMBERS, PUNCTUATION

_MARK = re.compile("[" + re.escape("".join(sorted(PUNCTUATION))) + "]")
_DIGIT_GROUPS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")


def normalise(answer: str) -> str:
    """Returns an answer as the official evaluation compares predictions.

    Lower case, punctuation and articles removed, number words up to ten as digits ("none" is 0),
    apostrophes put into contractions, single spaces: "The two dogs!" becomes "2 dogs". Nothing
    may be left: "a" becomes "".
    """
    answer = _strip(answer.replace("\n", " ").replace("\t", " ").strip())
    words = (NUMBERS.get(word, word) for word in answer.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def count_references(answers: Sequence[str]) -> Counter[str]:
    """Counts a question's answers in the form in which normalised predictions are compared.

    As officially done, the annotators' answers lose their punctuation, and only if they are not
    all the same; articles, number words and capitals stay. So where all ten wrote "two", no
    prediction is right: "two" itself is compared as "2".

    Raises:
        ValueError: if there are no answers.
    """
    if not answers:
        raise ValueError("answers must hold an annotator's answer at least, got none")
    counts = Counter(answers)
    return counts if len(counts) == 1 else merge_counts(counts, _strip)


def merge_counts(counts: Mapping[str, int], form: Callable[[str], str]) -> Counter[str]:
    """Returns how often each form occurs, of texts that occur as often as `counts` says."""
    merged: Counter[str] = Counter()
    for text, count in counts.items():
        merged[form(text)] += count
    return merged


def accuracy_of_count(count: int, annotators: int = 10) -> float:
    """Returns the accuracy, in [0, 1], of an answer that `count` of the annotators gave.

    With fewer than four annotators even full agreement stays below 1, and with one it is 0:
    repeat a single annotator's answer ten times.
    """
    agreeing, others = min(count - 1, 3), min(count, 3)
    return (count * agreeing + (annotators - count) * others) / (3 * annotators)


def question_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Returns the official accuracy of one prediction, in [0, 1].

    Args:
        prediction: any text; it is normalised here.
        answers: the annotators' answers, as given; ten in VQA.

    Raises:
        ValueError: if there are no answers.
    """
    return accuracy_of_count(count_references(answers)[normalise(prediction)], len(answers))


def score(
    predictions: Mapping[int, str], part: Part, *, digits: int | None = 2
) -> dict[str, float]:
    """Returns the official accuracies in percent: "overall", and of each answer type there.

    Args:
        predictions: question id -> answer, for every question of the part and no other.
        part: the questions with their annotators' answers.
        digits: decimals kept, two as officially reported; None does not round.

    Raises:
        ValueError: if the part is empty, or the predictions are not for its very questions.
    """
    ids = part.question_ids.tolist()
    _check_same_questions(predictions, ids)
    groups: dict[str, list[float]] = {"overall": []}
    for question_id, answers, kind in zip(ids, part.answers, part.answer_types, strict=True):
        accuracy = question_accuracy(predictions[question_id], answers)
        groups["overall"].append(accuracy)
        groups.setdefault(kind, []).append(accuracy)
    percent = {name: 100 * sum(group) / len(group) for name, group in groups.items()}
    if digits is None:
        return percent
    return {name: round(value, digits) for name, value in percent.items()}


def write_results(path: str | Path, predictions: Mapping[int, str]) -> None:
    """Writes predictions as the official evaluation takes them, atomically.

    The layout is JSON, a list of {"question_id": ..., "answer": ...}, in the mapping's order.
    """
    results = [{"question_id": int(key), "answer": str(predictions[key])} for key in predictions]
    write_json(path, results)


def read_results(path: str | Path) -> dict[int, str]:
    """Reads question id -> answer, as `write_results` writes them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: names the file, if it is damaged, has another layout or repeats a question.
    """
    results = read_json(path)
    is_list = isinstance(results, list)
    answers = [_read_result(result) for result in results] if is_list else [None]
    if None in answers:
        raise ValueError(
            f'{path} must hold a list of {{"question_id": integer, "answer": text}}, and does '
            "not; write it with write_results"
        )
    predictions = dict(answers)
    if len(predictions) < len(answers):
        repeated = Counter(question_id for question_id, _ in answers).most_common(1)[0][0]
        raise ValueError(
            f"{path} must answer every question once, question {repeated} is answered more "
            "often; leave the others out"
        )
    return predictions


def _read_result(result: object) -> tuple[int, str] | None:
    if not isinstance(result, dict):
        return None
    question_id, answer = result.get("question_id"), result.get("answer")
    return (question_id, answer) if type(question_id) is int and type(answer) is str else None


def _check_same_questions(predictions: Mapping[int, str], ids: Iterable[int]) -> None:
    wanted = set(ids)
    missing, unknown = wanted - set(predictions), set(predictions) - wanted
    if not wanted or missing or unknown:
        first = next(iter(sorted(missing) or sorted(unknown)), None)
        raise ValueError(
            f"predictions must answer the part's {len(wanted)} questions, at least one, and no "
            f"others: {len(missing)} are missing and {len(unknown)} belong to none of them, the "
            f"first is question {first}; predict for the part that is scored"
        )


def _strip(answer: str) -> str:
    """Removes punctuation, by the official rule.

    A mark goes where it touches a space anywhere in the answer, or where the answer has a comma
    between digits; else it leaves a space: "red,blue" is "red blue", "red, blue,green" is
    "red bluegreen". Then the periods go that no digit follows.
    """
    marks = set(_MARK.findall(answer))
    if marks:
        grouped = _DIGIT_GROUPS.search(answer) is not None
        answer = answer.translate(
            {
                ord(mark): "" if grouped or f"{mark} " in answer or f" {mark}" in answer else " "
                for mark in marks
            }
        )
    return _PERIOD.sub("", answer)
