"""The official accuracy of VQA (Antol et al., 2015), and its file of results.

A predicted answer is compared with those of ten annotators. With c of them agreeing it counts
0, 0.3, 0.6, 0.9 and 1 for c = 0, 1, 2, 3 and 4 or more: the mean over the annotators of
min(1, how many of the others agree / 3).

Of a single annotator's answer that rule makes 0, whatever is predicted. So where a question has
one answer, accuracy is 1 if the prediction is that answer, both normalised, else 0.
`warn_of_rule` says where a set's answers meet this, or limits of the official rule.
"""

import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..files.json_files import read_json, write_json
from ..files.numbers import INT64
from ..files.reading import clean_text, shown
from .annotations import Part

# The word tables of the official evaluation. Answers are in lower case when these are read, so that
# entries with a capital never apply; they are kept, as the tables are the official ones.
ARTICLES = frozenset(["a", "an", "the"])
PUNCTUATION = frozenset(';/[]"{}()=+\\_-><@`,?!')
NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
CONTRACTIONS = {
    "aint": "ain't",
    "arent": "aren't",
    "cant": "can't",
    "couldve": "could've",
    "couldnt": "couldn't",
    "couldn'tve": "couldn't've",
    "couldnt've": "couldn't've",
    "didnt": "didn't",
    "doesnt": "doesn't",
    "dont": "don't",
    "hadnt": "hadn't",
    "hadnt've": "hadn't've",
    "hadn'tve": "hadn't've",
    "hasnt": "hasn't",
    "havent": "haven't",
    "hed": "he'd",
    "hed've": "he'd've",
    "he'dve": "he'd've",
    "hes": "he's",
    "howd": "how'd",
    "howll": "how'll",
    "hows": "how's",
    "Id've": "I'd've",
    "I'dve": "I'd've",
    "Im": "I'm",
    "Ive": "I've",
    "isnt": "isn't",
    "itd": "it'd",
    "itd've": "it'd've",
    "it'dve": "it'd've",
    "itll": "it'll",
    "let's": "let's",
    "maam": "ma'am",
    "mightnt": "mightn't",
    "mightnt've": "mightn't've",
    "mightn'tve": "mightn't've",
    "mightve": "might've",
    "mustnt": "mustn't",
    "mustve": "must've",
    "neednt": "needn't",
    "notve": "not've",
    "oclock": "o'clock",
    "oughtnt": "oughtn't",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "shant": "shan't",
    "shed've": "she'd've",
    "she'dve": "she'd've",
    "she's": "she's",
    "shouldve": "should've",
    "shouldnt": "shouldn't",
    "shouldnt've": "shouldn't've",
    "shouldn'tve": "shouldn't've",
    "somebody'd": "somebodyd",
    "somebodyd've": "somebody'd've",
    "somebody'dve": "somebody'd've",
    "somebodyll": "somebody'll",
    "somebodys": "somebody's",
    "someoned": "someone'd",
    "someoned've": "someone'd've",
    "someone'dve": "someone'd've",
    "someonell": "someone'll",
    "someones": "someone's",
    "somethingd": "something'd",
    "somethingd've": "something'd've",
    "something'dve": "something'd've",
    "somethingll": "something'll",
    "thats": "that's",
    "thered": "there'd",
    "thered've": "there'd've",
    "there'dve": "there'd've",
    "therere": "there're",
    "theres": "there's",
    "theyd": "they'd",
    "theyd've": "they'd've",
    "they'dve": "they'd've",
    "theyll": "they'll",
    "theyre": "they're",
    "theyve": "they've",
    "twas": "'twas",
    "wasnt": "wasn't",
    "wed've": "we'd've",
    "we'dve": "we'd've",
    "weve": "we've",
    "werent": "weren't",
    "whatll": "what'll",
    "whatre": "what're",
    "whats": "what's",
    "whatve": "what've",
    "whens": "when's",
    "whered": "where'd",
    "wheres": "where's",
    "whereve": "where've",
    "whod": "who'd",
    "whod've": "who'd've",
    "who'dve": "who'd've",
    "wholl": "who'll",
    "whos": "who's",
    "whove": "who've",
    "whyll": "why'll",
    "whyre": "why're",
    "whys": "why's",
    "wont": "won't",
    "wouldve": "would've",
    "wouldnt": "wouldn't",
    "wouldnt've": "wouldn't've",
    "wouldn'tve": "wouldn't've",
    "yall": "y'all",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
    "youd": "you'd",
    "youd've": "you'd've",
    "you'dve": "you'd've",
    "youll": "you'll",
    "youre": "you're",
    "youve": "you've",
}
_MARK = re.compile("[" + re.escape("".join(sorted(PUNCTUATION))) + "]")
_DIGIT_GROUPS = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
RARE = 0.02
"""Share of questions that nothing can answer right which is not worth a word; VQA-v2: 0.0003."""


def normalise(answer: str) -> str:
    """Returns an answer as the official evaluation compares predictions.

    Lower case, punctuation and articles removed, number words up to ten as digits ("none" is 0),
    apostrophes put into contractions, single spaces: "The two dogs!" becomes "2 dogs". Nothing
    may be left: "a" becomes "".
    """
    answer = _strip(answer.replace("\n", " ").replace("\t", " ").strip())
    words = (NUMBERS.get(word, word) for word in answer.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


# Questions share most of their answers: the whole of VQA-v2 has some 200,000 different ones.
cached_normalise = lru_cache(maxsize=1 << 18)(normalise)


def count_references(answers: Sequence[str]) -> Counter[str]:
    """Counts a question's answers in the form in which normalised predictions are compared.

    As officially done, the annotators' answers lose their punctuation, and only if they are not
    all the same; articles, number words and capitals stay. So where all ten wrote "two", no
    prediction is right: "two" itself is compared as "2". A single answer is normalised.

    Raises:
        ValueError: if there are no answers.
    """
    if not answers:
        raise ValueError("answers must hold an annotator's answer at least, got none")
    if len(answers) == 1:
        return Counter([normalise(answers[0])])
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

    With two or three annotators even full agreement counts 1/3 or 2/3; a single one's answer
    counts 1, see the top of the file.
    """
    if annotators == 1:
        return float(count)
    agreeing, others = min(count - 1, 3), min(count, 3)
    return (count * agreeing + (annotators - count) * others) / (3 * annotators)


def question_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Returns the official accuracy of one prediction, in [0, 1].

    Args:
        prediction: any text; it is normalised here.
        answers: the annotators' answers, as given; ten in VQA.

    Raises:
        ValueError: if there are no answers, or the prediction is no text.
    """
    if not isinstance(prediction, str):
        raise ValueError(
            f"a predicted answer must be a text, got {shown(prediction)}, of type "
            f"{type(prediction).__name__}"
        )
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

    Warns:
        UserWarning: see `warn_of_rule`.
    """
    ids = part.question_ids.tolist()
    _check_same_questions(predictions, ids)
    warn_of_rule("the part", part.answers)
    groups: dict[str, list[float]] = {"overall": []}
    for question_id, answers, kind in zip(ids, part.answers, part.answer_types, strict=True):
        accuracy = question_accuracy(predictions[question_id], answers)
        groups["overall"].append(accuracy)
        groups.setdefault(kind, []).append(accuracy)
    percent = {name: 100 * sum(group) / len(group) for name, group in groups.items()}
    if digits is None:
        return percent
    return {name: round(value, digits) for name, value in percent.items()}


def warn_of_rule(what: str | Path, answers: Sequence[Sequence[str]]) -> None:
    """Warns where a set's answers, a list a question, are not what the official rule is made for.

    There may be one answer a question; two or three; or all annotators of more than `RARE` of the
    questions may have written the same answer in no normalised form, such as "two", when the rule
    gives every prediction 0.
    """
    one = sum(len(given) == 1 for given in answers)
    few = sum(len(given) in (2, 3) for given in answers)
    same = [given[0] for given in answers if len(given) > 1 and len(set(given)) == 1]
    never = [answer for answer in same if cached_normalise(answer) != answer]
    of_all = f"of the {len(answers):,} questions of {what}"
    if one:
        _warn(
            f"{one:,} {of_all} have one answer: their accuracy is 1 if the prediction is that "
            "answer, else 0, which is not the official one of ten annotators"
        )
    if few:
        _warn(
            f"{few:,} {of_all} have two or three answers, of which the official rule counts even "
            "the best prediction 1/3 or 2/3; give one answer, or at least four"
        )
    if len(never) > RARE * len(answers):
        _warn(
            f"{len(never):,} {of_all} can only be answered wrong: all their annotators wrote the "
            f"same, as {shown(never[0])}, which by the official rule no prediction matches, since "
            f"that one is compared as {shown(normalise(never[0]))}; write the answers as "
            "datasets.vqa.answers.normalise returns them"
        )


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=3)


def write_results(path: str | Path, predictions: Mapping[int, str]) -> None:
    """Writes predictions as the official evaluation takes them, atomically.

    The layout is JSON, a list of {"question_id": ..., "answer": ...}, in the mapping's order.
    Half a surrogate pair in an answer is written as U+FFFD.

    Raises:
        ValueError: names a question whose id is no whole number or whose answer is no text; the
            file is then as it was.
    """
    write_json(path, [_result(key, answer) for key, answer in predictions.items()])


def read_results(path: str | Path) -> dict[int, str]:
    """Reads question id -> answer, as `write_results` writes them; ids are numbers of int64.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: names the file, if it is damaged, has another layout or repeats a question.
    """
    results = read_json(path)
    is_list = isinstance(results, list)
    answers = [_read_result(result) for result in results] if is_list else [None]
    if None in answers:  # the list, or one of its entries
        raise ValueError(
            f'{path} must hold a list of {{"question_id": integer, "answer": text}}, and does '
            "not; write it with write_results"
        )
    predictions = dict(answers)
    if len(predictions) < len(answers):
        repeated = Counter(question_id for question_id, _ in answers).most_common(1)[0][0]
        raise ValueError(
            f"{path} must answer every question once, question {shown(repeated)} is answered more "
            "often; leave the others out"
        )
    return predictions


def _result(key: Any, answer: object) -> dict[str, int | str]:
    try:
        number = None if isinstance(key, bool) else operator.index(key)
    except TypeError:
        number = None
    if number is None or number not in INT64 or not isinstance(answer, str):
        raise ValueError(
            f"predictions must map whole numbers that int64 holds to texts, got question "
            f"{shown(key)} of type {type(key).__name__} with {shown(answer)} of type "
            f"{type(answer).__name__}; nothing was written"
        )
    return {"question_id": number, "answer": clean_text(str(answer))}


def _read_result(result: object) -> tuple[int, str] | None:
    if not isinstance(result, dict):
        return None
    question_id, answer = result.get("question_id"), result.get("answer")
    if type(question_id) is not int or question_id not in INT64 or type(answer) is not str:
        return None
    return question_id, clean_text(answer)


def _check_same_questions(predictions: Mapping[int, str], ids: Iterable[int]) -> None:
    wanted = set(ids)
    missing, unknown = wanted - set(predictions), set(predictions) - wanted
    if not wanted or missing or unknown:
        first = next(iter(sorted(missing) or sorted(unknown)), None)
        raise ValueError(
            f"predictions must answer the part's {len(wanted)} questions, at least one, and no "
            f"others: {len(missing)} are missing and {len(unknown)} belong to none of them, the "
            f"first is question {shown(first)}; predict for the part that is scored"
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
