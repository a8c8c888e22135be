"""The progress of a comparison, told on standard error while it is at work."""

import sys
import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from tqdm import tqdm

from ..paired import estimate
from ..recipe import Score
from .table import number, score_heading, spread
from .text import printable, shortened

MINUTE = 60.0  # seconds between two lines where there is no terminal
BAR = "{n_fmt}/{total_fmt} runs |{bar:12}| {elapsed}<{remaining}{postfix}"
NAME = 24  # columns of a name, at most


class Progress:
    """A bar on a terminal, and above it a line for each method once it has all its runs.

    Elsewhere, such as in a log or a notebook, a line a minute at most.

    Args:
        name: what is compared.
        done: (method, run) -> its result, None before it has ended; looked at again and again.
        scores: the first of them that a result has is told.
        shown: False: nothing is told.
    """

    def __init__(
        self,
        name: str,
        done: Mapping[tuple[str, int], Mapping[str, Any] | None],
        scores: Sequence[Score],
        *,
        shown: bool = True,
    ) -> None:
        self._name, self._done, self._scores = printable(name), done, scores
        shown = shown and None in done.values()
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._in_lines, self._headed = shown and not terminal, False
        self._began = self._told = time.monotonic()
        self._bar = tqdm(
            total=len(done),
            initial=self._ended,
            bar_format=BAR,
            smoothing=0.05,
            leave=False,
            dynamic_ncols=True,
            disable=not (shown and terminal),
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def _ended(self) -> int:
        return sum(result is not None for result in self._done.values())

    def tell(self, result: Mapping[str, Any]) -> None:
        """Tells of a run that has ended, which is in `done` by now."""
        if self._in_lines and time.monotonic() - self._told >= MINUTE:
            self._told = time.monotonic()
            minutes = (self._told - self._began) / MINUTE
            so_far = f"{self._ended} of {len(self._done)} runs after {minutes:.0f} min"
            tqdm.write(f"{self._name}: {so_far}; {self._latest(result)}", file=sys.stderr)
        if not self._bar.disable:
            self._bar.set_postfix_str(self._latest(result), refresh=False)
            self._bar.update()
            own = [r for (method, _), r in self._done.items() if method == result["method"]]
            ended = [r for r in own if r is not None]
            if len(ended) == len(own):
                self._fill_in(result["method"], ended)

    def _latest(self, result: Mapping[str, Any]) -> str:
        score = self._score(result)
        said = "failed"
        if score is not None:
            unit = " %" if score.percent else ""
            said = f"{score.name} {number(result['scores'][score.name], score)}{unit}"
        name = shortened(printable(result["method"]), NAME)
        return f"{name}, run {result['run']}: {printable(said)}"

    def _score(self, result: Mapping[str, Any]) -> Score | None:
        there = result.get("scores", {})
        return next((score for score in self._scores if score.name in there), None)

    def _fill_in(self, method: str, results: Sequence[Mapping[str, Any]]) -> None:
        """Writes the method's line above the bar."""
        sound = [result for result in results if "error" not in result]
        cells = ["all runs failed", ""]
        score = self._score(sound[0]) if sound else None
        if score is not None:
            values = [result["scores"][score.name] for result in sound]
            cells = [spread(estimate(values), score)]
            cells.append(f"{median(result['seconds'] for result in sound):.1f}")
            if not self._headed:
                self._headed = True
                self._row("method", score_heading(score), "seconds")
        self._row(method, *cells)

    def _row(self, name: str, score: str, seconds: str) -> None:
        width = min(NAME, max(len(printable(method)) for method, _ in self._done))
        name = shortened(printable(name), width)
        text = f"{name:<{width}}  {printable(score):>16}  {seconds:>9}".rstrip()
        tqdm.write(text, file=sys.stderr)
