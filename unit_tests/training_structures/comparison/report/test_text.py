"""Foreign text runs nothing, wherever it comes to stand."""

import csv
import io

import pytest

from deq_fusion.training_structures.comparison import Comparison, Score
from deq_fusion.training_structures.comparison.report.table import as_csv, markdown
from deq_fusion.training_structures.comparison.report.text import (
    columns_of,
    csv_text,
    in_markdown,
    in_picture,
    meant,
    printable,
    shortened,
)
from unit_tests.training_structures.comparison import toy

HOSTILE = "=<script>alert(1)</script>|a\n| b |\x1b[31m ](javascript:x) $x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<script>", "&lt;script>"),
        ("</td><!-- <?x", "&lt;/td>&lt;!-- &lt;?x"),
        ("< 0.001 and (< 6 runs)", "< 0.001 and (< 6 runs)"),
        ("a|b\nc\x1b[0m\u202e", r"a\|b\nc\x1b[0m\u202e"),
        ("[x](javascript:y) minus concat [95 %]", r"[x]\(javascript:y) minus concat [95 %]"),
        ("é ± 中, wide enough", "é ± 中, wide enough"),
    ],
)
def test_markdown_has_text_as_text(text, expected):
    assert in_markdown(text) == expected
    table = markdown(["method"], [[text]])
    assert table.splitlines()[2] == f"| {expected} |" and len(table.splitlines()) == 3


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_runs_nothing(begin):
    cell = f"{begin}HYPERLINK(1)"
    read = list(csv.reader(io.StringIO(csv_text([cell], [[cell, "-1.5", -2, "+0.1", "a=b"]]))))
    safe = f"'{printable(cell)}"
    assert read == [[safe], [safe, "-1.5", "-2", "+0.1", "a=b"]]


def test_results_have_their_names_neutral_and_their_numbers_as_they_are():
    result = {"method": "=1+1", "run": 0, "seconds": 1.0, "scores": {"@sum": -0.5}}
    read = list(csv.reader(io.StringIO(as_csv([result]))))
    assert read == [["method", "run", "seconds", "'@sum"], ["'=1+1", "0", "1.0", "-0.5"]]


def test_a_picture_and_a_terminal_get_no_commands():
    assert in_picture("$\\x$ \x1b") == r"\$\x\$ \x1b"
    assert printable("a\n\tb\x00", keep="\n\t") == "a\n\tb\\x00"


def test_a_whole_report_of_hostile_names(tmp_path):
    pytest.importorskip("matplotlib")
    result = {"run": 0, "seconds": 1.0, "scores": {"accuracy": 0.5}, "parameters": 3}
    result["missing"] = {HOSTILE: {"accuracy": 0.25}}
    result["warnings"] = [{"category": "UserWarning", "text": HOSTILE}]
    results = [{"method": HOSTILE, **result}, {"method": "plain", **result}]
    failures = [{"method": HOSTILE, "run": 1, "error": HOSTILE}]
    recipe, score = toy.recipe(name=HOSTILE), Score("accuracy")
    about = [], results, {HOSTILE: HOSTILE}, failures, [], score, HOSTILE, HOSTILE, None
    found = Comparison(recipe, *about, f"it --output {HOSTILE}", {})
    found.write(tmp_path)
    texts = {p.suffix: p.read_text(encoding="utf-8") for p in tmp_path.iterdir()}
    texts |= {"terminal": str(found), "html": found._repr_html_(), "md": found._repr_markdown_()}
    assert all("\x1b" not in text for text in texts.values())
    prose = texts[".md"].replace(f"    {printable(found.asked)}", "")  # that is code
    for text in (prose, texts["md"]):
        assert "<script" not in text and "](" not in text
    assert "<script" not in texts[".html"] and "<script" not in texts["html"]
    table = [line for line in texts[".md"].splitlines() if line.startswith("| ")]
    assert len(table) == 2 + len(results)
    rows = list(csv.reader(io.StringIO(texts[".csv"])))
    assert [row[0] for row in rows] == ["method", f"'{printable(HOSTILE)}", "plain"]


@pytest.mark.parametrize(
    "text", ["short", "a name that does not end", "模态模态模态", "e\u0301" * 9, ""]
)
@pytest.mark.parametrize("columns", [1, 2, 5, 8, 40])
def test_a_text_is_shortened_inside_to_its_columns(text, columns):
    short = shortened(text, columns)
    assert columns_of(short) <= columns
    if columns_of(text) <= columns:
        assert short == text
    else:
        begin, end = short.split("…")
        assert text.startswith(begin) and text.endswith(end)


def test_wide_characters_take_two_columns_and_accents_none():
    assert [columns_of(text) for text in ("ab", "模态", "e\u0301", "é")] == [2, 4, 1, 1]


def test_a_name_that_is_like_a_known_one_is_meant():
    known = ["deq", "concat", "concat_linear", "gmu"]
    assert meant(["concta"], known) == "did you mean concat? or "
    assert meant(["concta", "gum"], iter(known)) == "did you mean concat, gmu? or "
    assert meant(["transformer"], known) == "" == meant([], known)
