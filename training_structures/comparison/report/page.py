"""One self-contained HTML page of a comparison: no script, nothing loaded from elsewhere."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape as escaped
from types import MappingProxyType

from .diagnosis_pictures import DIAGNOSES
from .findings import Section
from .pictures import PICTURES, Shown, as_svg
from .text import printable

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, heading, and lines of cells."""
ABOUT = "What to know about these data"
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem;
  color: #111827; background: #fff; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.3rem, 5vw, 1.6rem); line-height: 1.25; margin: 0 0 1rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; } figure h2 { margin-top: 0; }
.title { color: #4b5563; margin: .5rem 0 .25rem; } .verdict { padding-left: 1.2rem; }
.scroll { overflow-x: auto; background:
  linear-gradient(to left, #fff 50%, #fff0) right / 3rem 100% no-repeat local,
  linear-gradient(to left, #64748b66, #64748b00) right / 1.25rem 100% no-repeat scroll; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e5e7eb; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff;
  padding-left: 0; border-right: 1px solid #e5e7eb; }
.hint { display: none; }
@media (max-width: 40rem) { .hint { display: block; }
  td:first-child { max-width: 9rem; overflow: hidden; text-overflow: ellipsis; } }
tr.baseline td { color: #0072b2; } tr.subject td { color: #c2410c; font-weight: 600; }
.pictures { columns: 22rem; column-gap: 2rem; margin-top: 2rem; }
figure { margin: 0 0 2rem; break-inside: avoid; }
figure img { width: 100%; max-width: 28rem; height: auto; }
figcaption, .note { color: #4b5563; font-size: .85rem; }
pre { background: #f3f4f6; padding: .75rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .8rem; }
"""


def escape(text: str) -> str:
    """Returns a text that is no markup, and has no control characters."""
    return escaped(printable(text, keep="\n\t"))


def page(
    shown: Shown,
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    title: str,
    headline: str,
    verdict: Sequence[str],
    legend: str,
    skipped: Mapping[str, str],
    failures: Sequence[Mapping[str, object]],
    warned: Sequence[str] = (),
    about: Sequence[str] = (),
    robust: Sequence[Table] = (),
    how_robust: Sequence[str] = (),
    sections: Sequence[Section] = (),
    diagnosed: Sequence[Table] = (),
    how_diagnosed: Sequence[str] = (),
    repeat: str,
) -> str:
    """Returns the page.

    Args:
        shown: what the pictures need.
        head: the headings of the table.
        lines: its cells, line by line.
        title: what was compared.
        headline: what came out, in a sentence.
        verdict: sentences above the table.
        legend: text below it.
        skipped: fusion -> why it is not there.
        failures: runs that raised.
        warned: what the other runs warned of.
        about: sentences on the data.
        robust: tables of robustness, below the pictures.
        how_robust: sentences on how to read them.
        sections: more tables.
        diagnosed: tables of diagnoses, below those.
        how_diagnosed: sentences on what they say, and on how to read them.
        repeat: how to get the same numbers again.
    """
    parts = [f'<p class="title">{escape(title)}</p><h1>{_unbroken(headline)}</h1>']
    parts.append(_list(verdict, "verdict"))
    kinds = {shown.baseline: "baseline", shown.subject: "subject"}
    parts.append(_table(head, lines, kinds))
    if failures:
        parts.append(f"<p><strong>Runs that failed: {len(failures)}, told below.</strong></p>")
    parts.append(f'<p class="note">{escape(legend)}</p>')
    if about:
        parts.append(f"<h2>{ABOUT}</h2>{_list(about)}")
    for each in sections:
        parts.append(f'<h2>{escape(each.heading)}</h2><p class="note">{escape(each.text)}</p>')
        parts.append(_table(each.head, each.lines))
    parts.append(f'<div class="pictures">{_pictures(shown)}</div>')
    parts += _section("Robustness", how_robust, robust, kinds)
    parts += _section("Diagnoses", how_diagnosed, diagnosed, kinds)
    if failures:
        parts.append("<h2>Runs that failed</h2>")
        parts += [
            f"<p>{escape(str(failure['method']))}, run {failure['run']}</p>"
            f"<pre>{escape(str(failure['error']))}</pre>"
            for failure in failures
        ]
    if warned:
        parts.append(f"<h2>Warnings</h2>{_list(warned)}")
    if skipped:
        reasons = [f"{name}: {reason}" for name, reason in skipped.items()]
        parts.append(f"<h2>Not compared</h2>{_list(reasons)}")
    parts.append(f"<h2>To repeat it</h2><pre>{escape(repeat)}</pre>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>{chr(10).join(parts)}</body></html>\n"
    )


def _section(
    title: str, says: Sequence[str], tables: Sequence[Table], kinds: Mapping[str | None, str]
) -> list[str]:
    """Returns a heading, sentences and tables; nothing if there is nothing below the heading."""
    if not says and not tables:
        return []
    parts = [f"<h2>{title}</h2>"]
    parts += [f'<p class="note">{escape(sentence)}</p>' for sentence in says]
    for name, head, lines in tables:
        parts += [f"<h3>{escape(name)}</h3>", _table(head, lines, kinds)]
    return parts


def _unbroken(sentence: str) -> str:
    """Returns a sentence in which no line ends between a number and its sign, or p and its own."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[\d<&])", "&nbsp;", escape(sentence))


def _list(sentences: Sequence[str], kind: str = "") -> str:
    items = "".join(f"<li>{_unbroken(sentence)}</li>" for sentence in sentences)
    return f'<ul class="{kind}">{items}</ul>'


def _table(
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    kinds: Mapping[str | None, str] = MappingProxyType({}),
) -> str:
    """Returns a table; `kinds` are the classes of lines, by their first cells."""
    body = "".join(
        f'<tr class="{kinds.get(line[0], "")}">'
        + "".join(f"<td>{escape(cell)}</td>" for cell in line)
        + "</tr>"
        for line in lines
    )
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    hint = '<p class="note hint">The table scrolls sideways.</p>'
    return f'{hint}<div class="scroll" tabindex="0" role="region" aria-label="Table">{table}</div>'


def _pictures(shown: Shown) -> str:
    try:
        figures = [
            (name, " ".join(draw.__doc__.split()), draw(shown))
            for name, draw in (*PICTURES.items(), *DIAGNOSES.items())
        ]
    except ModuleNotFoundError:
        return '<p class="note">Pictures need matplotlib: pip install matplotlib, run again.</p>'
    return "".join(
        f"<figure><h2>{name}</h2>"
        f'<img alt="{escape(says)}" src="data:image/svg+xml;base64,'
        f'{base64.b64encode(as_svg(figure)).decode()}"><figcaption>{escape(says)}</figcaption></figure>'
        for name, says, figure in figures
        if figure is not None
    )
