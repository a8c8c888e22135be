"""The progress of a comparison, told on standard error while it is at work."""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from statistics import fmean, median
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

    Elsewhere, such as in a log or a notebook, a line a minute, in long runs as well: how many runs
    have ended, and about how long the others take at the pace so far.

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
        self._began, self._before = time.monotonic(), set(self._keys_ended())
        self._last: Mapping[str, Any] | None = None
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._tell_time, daemon=True)
        self._bar = tqdm(
            total=len(done),
            initial=len(self._before),
            bar_format=BAR,
            smoothing=0.05,
            leave=False,
            dynamic_ncols=True,
            disable=not (shown and terminal),
        )

    def __enter__(self) -> "Progress":
        if self._in_lines:
            self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._in_lines:
            self._clock.join()
        self._bar.close()

    def _keys_ended(self) -> list[tuple[str, int]]:
        return [key for key, result in list(self._done.items()) if result is not None]

    def _tell_time(self) -> None:
        """Writes a line a minute until all is over; a run may take longer than that."""
        while not self._over.wait(MINUTE):
            tqdm.write(self.line(), file=sys.stderr)

    def line(self) -> str:
        """Returns how far the work is, in a line."""
        elapsed = time.monotonic() - self._began
        ended = len(self._keys_ended())
        text = f"{self._name}: {ended} of {len(self._done)} runs after {_rounded(elapsed)}"
        left = self._left(elapsed)
        text += "" if left is None else f", about {_rounded(left)} left"
        return text if self._last is None else f"{text}; last {self._latest(self._last)}"

    def _left(self, elapsed: float) -> float | None:
        """Returns about how many seconds the other runs take; None before one was trained.

        A run takes as long as others of its method, or as the trained ones do on average where
        there are none; and the processes get through as many such seconds as they have so far.
        """
        done = list(self._done.items())
        known = {key: r["seconds"] for key, r in done if r is not None and "seconds" in r}
        trained = {key[0] for key, r in done if r is not None and "seconds" in r and "epochs" in r}
        spent = sum(seconds for key, seconds in known.items() if key not in self._before)
        if not trained or not spent:
            return None
        took: dict[str, list[float]] = {}
        for (method, _), seconds in known.items():
            took.setdefault(method, []).append(seconds)
        each = {method: median(seconds) for method, seconds in took.items()}
        usual = fmean(each[method] for method in trained)
        left = sum(each.get(method, usual) for (method, _), r in done if r is None)
        return left * elapsed / spent

    def tell(self, result: Mapping[str, Any]) -> None:
        """Tells of a run that has ended, which is in `done` by now."""
        self._last = result
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


def _rounded(seconds: float) -> str:
    """Returns a time in minutes, and a long one in hours, as text."""
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{max(minutes, 1)} min" if seconds else "0 min"
    return f"{seconds / 3600:.1f} h"
