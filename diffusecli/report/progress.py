"""Progress of a command: a live rich display on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from statistics import mean
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diffusecli.evaluation.names import short_names
from diffusecli.prompts.groups import WHOLE, group_of, noun_of
from diffusecli.report.numbers import plus_minus
from diffusecli.report.parts import nats, percent
from diffusecli.report.tables import answers
from diffusecli.report.widths import distinguishable
from diffusecli.runs.iteration import Iteration, Step
from diffusecli.sampling.settings import Standing
from diffusecli.system.errors import many
from diffusecli.system.terminal import spelled
from diffusecli.system.waits import Wait, waits_shown_by

_MOST_PROMPTS = 8  # that have a row each
_MOST_ROWS = 12
_WORST = 3
_WIDEST_NAME = 28
_SPARK_WIDTH = 24
_REFRESH, _IN_A_PIPE = 0.25, 30.0  # seconds between updates, on a terminal and elsewhere
_SILENT = 1.0  # seconds on a terminal, after which it shows what the command is busy with
_TOP_ANSWERS = 10
_PACED = 16  # reports that give the pace of sampling
_STEPS_SHOWN = 50  # the KL shown is the mean of this many steps
_SPARKS = "▁▂▃▄▅▆▇█"


class Display(AbstractContextManager[Any]):
    """A view that is redrawn in place if `console` is a terminal, and plain lines otherwise.

    Inside, it shows what a command is busy with (`waiting_for`) as soon as nothing else was shown for a while.
    """

    def __init__(self, console: Console) -> None:
        """On stderr."""
        self._console = console
        self._live: Live | None = None
        self._view: RenderableType | None = None  # the last one, without a wait
        self._wait: Wait | None = None
        self._looked = time.monotonic()  # when something was shown
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._watching = waits_shown_by(self._waiting)

    def __enter__(self) -> Self:
        self._watching.__enter__()
        threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._watching.__exit__(kind, error, trace)
        with self._lock:
            if self._live is not None:
                self._live.update(self._view or Text(""), refresh=True)
                self._live.transient = self._view is None
                self._live.stop()

    def _waiting(self, now: Wait | None) -> None:
        self._wait = now

    def _tick(self) -> None:
        while not self._ended.wait(_REFRESH):
            self.look()

    def look(self) -> None:
        """Show the wait if nothing was shown for a second on a terminal, and for 30 s elsewhere."""
        clock, live = time.monotonic(), self._console.is_terminal
        with self._lock:
            if self._wait is None or self._ended.is_set() or clock - self._looked < (_SILENT if live else _IN_A_PIPE):
                return
            line = self._wait.line(clock)
            if live:
                self._draw(Group(*([self._view] if self._view is not None else []), Text(line, style="dim")))
            else:
                self._print(line)

    def _show(self, view: RenderableType) -> None:
        with self._lock:
            self._view = view
            self._looked = time.monotonic()
            self._draw(view)

    def _draw(self, view: RenderableType) -> None:
        if self._console.quiet:  # a live display would swallow warnings
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(view, refresh=True)

    def _print(self, line: str) -> None:
        with self._lock:
            self._looked = time.monotonic()
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class TrainingProgress(Display):
    """Call it with each `Iteration`; use it as a context manager around training."""

    def __init__(self, console: Console) -> None:
        """On stderr."""
        super().__init__(console)
        self._first: Iteration | None = None
        self._first_step: Step | None = None
        self._kls: deque[float] = deque(maxlen=_STEPS_SHOWN)
        self._stepped = 0.0  # when a step was shown
        self._earlier = 0.0  # seconds of earlier commands
        self._seen: deque[Iteration] = deque(maxlen=_SPARK_WIDTH)  # bounded: a long training has many

    def __call__(self, seen: Iteration) -> None:
        """Show one iteration."""
        self._seen.append(seen)
        self._stepped = time.monotonic()
        self._first = self._first or seen
        if not self._console.is_terminal:
            self._print(_line(seen, self._remaining(), self._earlier))
        else:
            self._show(live_view(self._seen, self._remaining(), earlier=self._earlier))

    def step(self, seen: Step) -> None:
        """Show a step if iterations are far apart: a few times a second on a terminal, otherwise a line every 30 s."""
        clock, live = time.monotonic(), self._console.is_terminal
        self._kls.append(seen.kl)
        self._earlier = seen.earlier
        if self._seen and seen.of == self._seen[-1].of:  # every step is an iteration, which is shown itself
            return
        if self._first_step is None:
            self._first_step, self._stepped = seen, clock
        if seen.step == self._first_step.step or clock - self._stepped < (_REFRESH if live else _IN_A_PIPE):
            return
        self._stepped = clock
        steps = min(len(self._kls), max(1, seen.of // self._seen[-1].of if self._seen else len(self._kls)))  # of one iteration
        kl = sum(list(self._kls)[-steps:]) / steps
        pace = (seen.seconds - self._first_step.seconds) / (seen.step - self._first_step.step)
        line = (
            f"step {seen.step}/{seen.of}  KL {kl:.4f} (last {many(steps, 'step')})  "
            f"on target {percent(seen.on_target)}  {seen.seconds - seen.earlier:.0f} s, {pace * (seen.of - seen.step):.0f} s left"
        )
        if not live:
            self._print(line)
        elif self._seen:
            self._show(live_view(self._seen, self._remaining(), line))
        else:
            self._show(Text(line))

    def _remaining(self) -> float:
        """Seconds left, from the pace since this display started (earlier iterations may have run on another machine)."""
        last = self._seen[-1]
        first = self._first or last
        here = last.iteration - first.iteration
        pace = (last.seconds - first.seconds) / here if here else last.seconds / last.iteration
        return pace * (last.of - last.iteration)


class SamplingProgress(Display):
    """Call it with a prompt's alias and its progress. A finished prompt leaves one line."""

    def __init__(self, console: Console, prompts: int) -> None:
        """`prompts` is the number of prompts to sample."""
        super().__init__(console)
        self._prompts, self._done = prompts, 0
        self._alias: str | None = None  # the current prompt
        self._over: str | None = None  # the last finished prompt
        self._paced: deque[tuple[float, int]] = deque(maxlen=_PACED)  # when how many tokens of the prompt were fed
        self._began = self._updated = self._prompt_began = time.monotonic()

    def __call__(self, alias: str, now: Standing) -> None:
        """Show the progress of a prompt: a few times a second on a terminal, otherwise a line every 30 s."""
        clock, live = time.monotonic(), self._console.is_terminal
        if alias != self._alias:  # the time excludes loading models
            self._alias, self._prompt_began = alias, clock
            self._paced.clear()
        self._paced.append((clock, now.tokens_fed))
        due = clock - self._updated >= (_REFRESH if live else _IN_A_PIPE)
        may_be_over = now.rows == 0 and alias != self._over
        if not due and not may_be_over:
            return
        drawn = now.answers.total()
        over = may_be_over and drawn >= now.wanted
        line = f"{spelled(alias)}: {drawn} of {many(now.wanted, 'sample')}, {len(now.answers)} distinct"
        under_way = f"{line}, {clock - self._prompt_began:.0f} s{self._time_left(now)}"
        if over:
            self._over = alias
            self._done += 1
            self._print(line)
        elif not live:
            if not due:
                return
            self._print(under_way)
        self._updated = clock
        if live:
            in_all = f"{self._done} of {many(self._prompts, 'prompt')}, {clock - self._began:.0f} s"
            head = [Text(in_all)] if over else [Text(under_way), Text(in_all), answers(now.answers, _TOP_ANSWERS, now.wanted)]
            self._show(Group(*head))

    def _time_left(self, now: Standing) -> str:
        """The time for the tokens still to feed, at the pace of the last reports: rare answers take long, however few they are."""
        (began, before), (clock, fed) = self._paced[0], self._paced[-1]
        left = now.tokens_left() * (clock - began) / (fed - before) if fed > before else math.nan
        return f", about {left:.0f} s left" if math.isfinite(left) else ""


def live_view(seen: Sequence[Iteration], remaining: float, line: str = "", earlier: float = 0.0) -> RenderableType:
    """A bar, the figures of the last iteration (or `line`, of a later step), and sparklines of the exact KL of each prompt.

    Of more than eight prompts it shows their folders, and names the prompts furthest from their targets. The rows keep their places.
    """
    last = seen[-1]
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(last.of, last.iteration, width=20), Text(line or _progress(last, remaining, earlier)))
    figures = [] if line else [Text(_figures(last))]
    rows = Table.grid(padding=(0, 2))
    rows.add_row(
        f"KL, iteration {last.iteration}" if line else "KL", "", Text("nats", justify="right"), Text("on target", justify="right")
    )
    aliases = list(last.kl)
    names = short_names(aliases)
    groups = {names[alias]: [alias] for alias in aliases} if len(aliases) <= _MOST_PROMPTS else _folders(aliases)
    shown = list(groups.items())[:_MOST_ROWS]
    for (_, members), name in zip(shown, distinguishable([name for name, _ in shown], _WIDEST_NAME), strict=True):
        history = [mean(iteration.kl[alias] for alias in members) for iteration in seen]
        rows.add_row(
            Text(spelled(name)), sparkline(history), Text(nats(history[-1]), justify="right"),
            Text(percent(mean(last.on_target[alias] for alias in members)), justify="right"),
        )  # fmt: skip
    below = [f"and {many(len(groups) - len(shown), 'other folder')}"] if len(groups) > len(shown) else []
    if len(aliases) > _MOST_PROMPTS:
        furthest = sorted(aliases, key=lambda alias: -last.kl[alias])[:_WORST]
        below.append(f"furthest: {', '.join(f'{spelled(names[alias])} {nats(last.kl[alias])}' for alias in furthest)}")
    return Group(bar, *figures, rows, *map(Text, below))


def _folders(aliases: Sequence[str]) -> dict[str, list[str]]:
    """Folder -> its prompts. Figures of very many prompts are by folder already."""
    if noun_of(aliases) == "folder":
        return {alias: [alias] for alias in aliases}
    found: dict[str, list[str]] = {}
    for alias, folder in group_of(aliases).items():
        found.setdefault(f"all {many(len(aliases), 'prompt')}" if folder == WHOLE else folder, []).append(alias)
    return found


def sparkline(values: Sequence[float]) -> str:
    """The last values as bars, on a logarithmic scale from 0.001 to 10 nats.

    >>> sparkline([10, 1, 0.1, 0.01, 0.001])
    '█▆▅▃▁'
    """
    heights = [(math.log10(min(max(value, 1e-3), 10)) + 3) / 4 for value in values[-_SPARK_WIDTH:]]
    return "".join(_SPARKS[round(height * (len(_SPARKS) - 1))] for height in heights)


def _line(seen: Iteration, remaining: float, earlier: float) -> str:
    """One iteration on one line."""
    where, _, times = _progress(seen, remaining, earlier).partition("  ")
    return f"{where}  {_figures(seen)}  {times}"


def _progress(seen: Iteration, remaining: float, earlier: float) -> str:
    """The iteration, the seconds of this command (not of `earlier` ones), and those left."""
    left = f", {remaining:.0f} s left" if seen.iteration < seen.of else ""
    return f"iteration {seen.iteration}/{seen.of}  {seen.seconds - earlier:.0f} s{left}"


def _figures(seen: Iteration) -> str:
    test = f"  test KL {seen.mean_test_kl:.4f}" if seen.mean_test_kl is not None else ""
    return f"KL {plus_minus(seen.mean_kl, seen.mean_kl_error)}{test}  on target {percent(seen.mean_on_target)}"
