"""Equations of LaTeX as MathML, which browsers draw without a script.

```math          one in a line of its own
$x_i$            one in the text
"""

import re

from latex2mathml.converter import convert

EQUATION = re.compile(
    r"^```math\n(?P<block>.*?)^```$|(?P<code>^(?P<fence>```+).*?^(?P=fence)$|`[^`\n]+`)"
    r"|\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$",
    re.MULTILINE | re.DOTALL,
)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Returns a page's text with its equations drawn."""
    return EQUATION.sub(drawn, markdown)


def drawn(match: re.Match[str]) -> str:
    """Returns an equation as HTML, and code as it is."""
    if match["code"]:
        return match["code"]
    if match["inline"]:
        return f"<span>{convert(match['inline'])}</span>"  # or it would be a block of its own
    return f'<div class="equation">{convert(match["block"].strip(), display="block")}</div>'
