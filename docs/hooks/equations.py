"""Equations: a block ```math of LaTeX becomes MathML, which browsers draw without a script."""

import re

from latex2mathml.converter import convert

BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Returns a page's text with its equations drawn."""
    return BLOCK.sub(lambda block: drawn(block[1]), markdown)


def drawn(latex: str) -> str:
    """Returns an equation in a line of its own, a line of HTML."""
    return f'<div class="equation">{convert(latex.strip(), display="block")}</div>'
