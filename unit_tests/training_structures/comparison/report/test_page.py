"""The page: one file that needs nothing else, with everything in it."""

import base64
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from deq_fusion.training_structures.comparison import Score
from deq_fusion.training_structures.comparison.methods import FLOOR, FUSION, SINGLE
from deq_fusion.training_structures.comparison.report.findings import Section
from deq_fusion.training_structures.comparison.report.page import page
from deq_fusion.training_structures.comparison.report.pictures import PICTURES, Shown
from deq_fusion.training_structures.comparison.report.table import cells, make_rows

ROBUST = {"Robustness to noise", "Robustness to absence"}  # see test_robustness.py

VOID = {"meta", "img", "br"}
HOSTILE = '<b onclick="x">&\''
SCORE = Score("accuracy")


class Reader(HTMLParser):
    """Checks that what is opened is closed, and keeps tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def results(runs=3, solves=True, missing=True):
    """A floor, a single modality, two fusions, and one that solves an equilibrium."""
    for place, method in enumerate(["floor", "only a", "concat", HOSTILE, "deq"]):
        for run in range(runs):
            result = {"method": method, "run": run, "seconds": 1.0 + place}
            result["kind"] = {0: FLOOR, 1: SINGLE}.get(place, FUSION)
            result["scores"] = {"accuracy": 0.5 + 0.1 * place + 0.01 * run}
            if place:
                loss = [{"epoch": e, "valid_loss": 1 / e} for e in range(1, 4 + run)]
                result |= {"parameters": 10**place, "epochs": 3 + run, "curve": loss}
            if place == 4 and solves:
                result |= {"solver_steps": 5.0, "solver_converged": 1.0}
                for epoch in loss:
                    epoch |= {"solver_steps": 5.0, "solver_converged": 1.0}
            if place > 1 and missing:
                result["missing"] = {"a": {"accuracy": 0.4}, "<i>b": {"accuracy": 0.3}}
            yield result


def make(found, baseline="concat", subject="deq", **changes):
    rows = make_rows(found, [SCORE], baseline=baseline)
    head, lines = cells(rows, [SCORE], baseline)
    settings = {
        "title": "toy",
        "headline": "One is better, 1.2 % and p 0.003.",
        "verdict": ["This is best."],
        "legend": "how to read it",
        "skipped": {},
        "failures": [],
        "repeat": "python -m it",
    }
    shown = Shown(rows, found, SCORE, "loss", baseline, subject)
    return page(shown, head, lines, **settings | changes)


@pytest.fixture(scope="module")
def text():
    return make(
        list(results()),
        title=HOSTILE,
        headline=HOSTILE,
        verdict=[HOSTILE],
        legend=HOSTILE,
        skipped={HOSTILE: HOSTILE},
        failures=[{"method": HOSTILE, "run": 3, "error": HOSTILE}],
        about=[HOSTILE],
        repeat=HOSTILE,
    )


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as if it were not installed


def test_it_is_well_formed_and_loads_nothing(text):
    read = Reader(text)
    assert text.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in read.tags}
    for _, attributes in read.tags:
        for name in ("src", "href", "srcset"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert {"charset": "utf-8"} in read.all("meta")
    assert any("width=device-width" in meta.get("content", "") for meta in read.all("meta"))


def test_it_holds_the_table_and_the_sentences(no_pictures):
    read = Reader(make(list(results())))
    best = f"{100 * (0.9 + 0.01):.1f} ± {100 * 0.01:.1f}"
    assert read.text.index("toy") < read.text.index("One is better, 1.2\xa0% and p\xa00.003.")
    assert len(read.all("h1")) == 1
    for said in ("toy", "This is best.", "how to read it", "python -m it", "without a", best):
        assert said in read.text
    assert len(read.all("tr")) == 1 + 5
    kinds = [attributes.get("class") for attributes in read.all("tr")]
    assert kinds.count("baseline") == kinds.count("subject") == 1


def test_names_are_text_wherever_they_stand(text):
    read = Reader(text)
    assert not {"b", "i"} & {tag for tag, _ in read.tags}
    assert read.text.count(HOSTILE) == 12  # the table, the title twice, and the others once each
    assert "without <i>b" in read.text


def test_every_picture_is_there_and_is_a_picture(text):
    pytest.importorskip("matplotlib")
    read = Reader(text)
    pictures = read.all("img")
    usual = PICTURES.keys() - ROBUST
    assert len(pictures) == len(usual) == len(read.all("figure"))
    for name in usual:
        assert name in read.text
    for picture in pictures:
        assert picture["alt"] in read.text  # the caption
        kind, _, data = picture["src"].partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")


@pytest.mark.parametrize(
    ("made", "options", "left_out"),
    [
        ({"runs": 1}, {}, set()),
        ({"solves": False}, {"baseline": None, "subject": None}, {"Differences", "Convergence"}),
        ({"runs": 1, "missing": False}, {}, {"Missing modalities"}),
    ],
)
def test_pictures_of_what_is_not_there_are_left_out(made, options, left_out):
    pytest.importorskip("matplotlib")
    read = Reader(make(list(results(**made)), **options))
    assert len(read.all("img")) == len(PICTURES) - len(left_out | ROBUST)
    for name in left_out | ROBUST:
        assert name not in read.text


def test_floors_alone_make_a_page():
    pytest.importorskip("matplotlib")
    found = [result for result in results() if result["method"] == "floor"]
    assert Reader(make(found, baseline=None)).all("table")


def test_the_same_results_make_the_same_page():
    found = list(results(runs=1))
    assert make(found) == make(found)


def test_failures_and_what_was_skipped_are_told(no_pictures):
    failure = {"method": "film", "run": 3, "error": "Traceback\n  RuntimeError: <no>"}
    skipped = {"tensor": "takes 3 modalities, and there are 2"}
    about = ["there are three rows"]
    read = Reader(make(list(results()), failures=[failure], skipped=skipped, about=about))
    assert "What to know about these data" in read.text
    assert "film, run 3" in read.text and "RuntimeError: <no>" in read.text
    assert "tensor: takes 3 modalities, and there are 2" in read.text
    assert "Runs that failed: 1, told below." in read.text
    order = [
        "This is best.",
        "without a",
        "three rows",
        "Pictures need",
        "RuntimeError",
        "Not compared",
    ]
    assert sorted(order, key=read.text.index) == order
    whole = Reader(make(list(results()))).text
    for absent in ("failed", "Not compared", "What to know"):
        assert absent not in whole


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("select", ["loss", "accuracy", "mae"])
def test_axes_say_where_less_is_better(select, lower):
    pytest.importorskip("matplotlib")
    found = [
        {
            **{"method": name, "run": run, "scores": {"it": 0.5 + run / 9}, "seconds": 1.0},
            **{"curve": [{f"valid_{select}": 1.0 / epoch} for epoch in (1, 2, 3)]},
            **{"parameters": 9, "fusion_parameters": 3, "epochs": 3, "best_epoch": 1},
        }
        for name in ("deq", "concat")
        for run in range(3)
    ]
    score = Score("it", percent=False, lower=lower)
    rows = make_rows(found, [score], baseline="concat")
    shown = Shown(rows, found, score, select, "concat", "deq")
    (axes,) = PICTURES["Learning"](shown).axes
    told = "" if select == "accuracy" else " (lower is better)"
    assert axes.get_ylabel() == f"validation {select}{told}"
    told = " (lower is better)" if lower else ""
    assert PICTURES["Scores"](shown).axes[0].get_xlabel() == f"it{told}"
    assert PICTURES["Differences"](shown).axes[0].get_xlabel() == f"it{told}, minus concat"


@pytest.mark.parametrize("select", ["loss", "accuracy"])
def test_a_run_that_has_ended_keeps_its_best_on_the_picture_of_learning(select):
    pytest.importorskip("matplotlib")
    sign = 1 if select == "accuracy" else -1
    runs = [[0.2, 0.1, 0.5], [0.3, float("nan"), 0.4, 0.2, 0.9]]  # the better, the higher
    found = [
        {
            **{"method": "deq", "run": run, "scores": {"accuracy": 0.5}, "seconds": 1.0},
            **{"curve": [{f"valid_{select}": sign * x} for x in values]},
            **{"parameters": 9, "epochs": len(values), "best_epoch": 1},
        }
        for run, values in enumerate(runs)
    ]
    shown = Shown(make_rows(found, [SCORE]), found, SCORE, select, None, "deq")
    (axes,) = PICTURES["Learning"](shown).axes
    means = sign * np.mean([[0.2, 0.2, 0.5, 0.5, 0.5], [0.3, 0.3, 0.4, 0.4, 0.9]], axis=0)
    (line,) = axes.lines
    assert line.get_ydata() == pytest.approx(means)
    assert "one that has ended keeps its best" in " ".join(PICTURES["Learning"].__doc__.split())


def test_pictures_have_all_methods_or_say_which_they_leave_out():
    pytest.importorskip("matplotlib")
    found = list(results())
    rows = make_rows(found, [SCORE], baseline="concat")
    shown = Shown(rows, found, SCORE, "loss", "concat", "deq")
    (axes,) = PICTURES["Differences"](shown).axes
    named = {label.get_text() for label in axes.get_yticklabels()}
    assert named >= {"floor", "only a", "deq"} and "concat" not in named
    told = " ".join(PICTURES["Costs"].__doc__.split())
    assert "Single modalities, and floors such as linear" in told


def test_more_tables_stand_on_the_page():
    lines = [["<b>red", "3", "1"], ["white", "0", "4"]]
    section = Section("Taken for", "Rows are true & columns not.", ["class", "<b>red", "w"], lines)
    read = Reader(make(list(results()), sections=[section]))
    assert len(read.all("table")) == 2 and "Rows are true & columns not." in read.text
    assert "<b>red31" in read.text and "class<b>redw" in read.text


def test_without_matplotlib_the_page_says_what_to_do(no_pictures):
    read = Reader(make(list(results())))
    assert "Pictures need matplotlib: pip install matplotlib" in read.text
    assert not read.all("img") and read.all("table")
