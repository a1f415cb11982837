"""The report: as text, as HTML, and as a dictionary."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dualrev.inspection.drawing.drawings import Drawing
from dualrev.inspection.explanation.lines import short
from dualrev.inspection.explanation.variants import Argument, Line, Variant
from dualrev.linear.residuals import size
from dualrev.time_model import time_in_words

#: Lines of the user's program that are shown; all are in :attr:`Explanation.lines`.
MOST_LINES = 10
WIDTH = 150


@dataclass(frozen=True)
class Explanation:
    """What a derivative costs in each way that there is, which way is recommended, and what dominates it.

    ``print`` shows it, a notebook draws it, :meth:`to_dict` is for machines.

    Attributes:
      name: the function; ``derivative``, what is asked of it: ``"grad"``, ``"jacobian"`` or ``"hessian"``.
      arguments: the arrays among the arguments, and which of them are differentiated; ``outputs``, the types of the results.
      value: of a scalar function, its value; ``norm``, the Euclidean norm of all that it returns.  None where arguments are shapes.
      function: what the function itself costs.
      variants: the ways to the derivative, the fastest first; ``left_out``, those that were not priced, and why.
      predicted: the name of the variant that is predicted to be the best; ``recommended``, the same unless measured times say
        otherwise.
      automatic: the way that ``engine="auto"`` takes.
      code: the line of code that makes the recommended variant; ``notes``, what must be known of it and of the prices.
      lines: what dominates the recommended variant, by line of the user's program.
      constants: the constants of the time model; ``is_measured``, whether the variants were timed.
    """

    name: str
    derivative: str
    arguments: tuple[Argument, ...]
    outputs: tuple[str, ...]
    value: float | None
    norm: float | None
    function: Variant
    variants: tuple[Variant, ...]
    left_out: Mapping[str, str]
    predicted: str
    recommended: str
    automatic: str
    code: str
    notes: tuple[str, ...]
    lines: tuple[Line, ...]
    constants: str
    is_measured: bool
    _draw: Callable[[], Drawing] = field(compare=False, repr=False)

    def picture(self) -> Drawing:
        """The function and its predicted times, as :func:`dualrev.draw` draws them; notebooks show it below the tables."""
        return self._draw()

    def __getitem__(self, name: str) -> Variant:
        """The variant of a name."""
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise KeyError(f"no variant {name!r}; there are {', '.join(v.name for v in self.variants)}")

    def to_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, strings and numbers, as JSON has them."""
        found = dataclasses.asdict(self)
        del found["_draw"]
        return {key: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
                for key, value in found.items()}

    # ------------------------------------------------------------------------------------------------------------ text

    @property
    def heading(self) -> list[str]:
        """What is differentiated, by what, and where it stands."""
        what = {"grad": "gradient", "jacobian": "Jacobian", "hessian": "Hessian"}[self.derivative]
        moving = [f"{a.name} {a.type}" for a in self.arguments if a.is_differentiated]
        fixed = [f"{a.name} {a.type}" for a in self.arguments if not a.is_differentiated]
        lines = [f"{what} of {self.name} by {_listed(moving)}"]
        if fixed:
            lines.append(f"not differentiated: {_listed(fixed)}")
        value = "" if self.norm is None else f", value {self.value:.6g}" if self.value is not None else f", norm {self.norm:.6g}"
        return [*lines, f"output: {_listed(self.outputs)}{value}"]

    @property
    def reasons(self) -> list[str]:
        """Which variant is recommended, and why."""
        best = self[self.recommended]
        if not self.is_measured:
            lines = [f"recommended: {self.recommended}, predicted to take {time_in_words(best.seconds)}"]
        elif self.recommended == self.predicted:
            lines = [f"recommended: {self.recommended}, as predicted; measured {_time(best.measured_seconds)}"]
        else:
            times = 1 / (best.measured_ratio or 1)
            lines = [f"recommended: {self.recommended}, measured {_time(best.measured_seconds)}, {times:.2f} times as fast as "
                     f"{self.predicted}, which was predicted to be the best"]
        if self.recommended != self.automatic:
            lines.append(f'engine="auto" takes {self.automatic}')
        small = min(self.variants, key=lambda v: (v.measured_peak_bytes or v.peak_bytes, v.seconds))
        peak, least = (v.measured_peak_bytes or v.peak_bytes for v in (best, small))
        if least < 0.8 * peak:
            times = (small.measured_seconds or small.seconds) / (best.measured_seconds or best.seconds)
            lines.append(f"least memory: {small.name}, {size(least)} instead of {size(peak)}, in {times:.2g} times the time")
            lines.append(f"    {small.code}")
        return [*lines, *self.notes]

    def _columns(self) -> tuple[list[str], list[list[str]]]:
        columns: list[tuple[str, Callable[[Variant], str]]] = [
            ("passes", lambda v: v.how), ("predicted", lambda v: time_in_words(v.seconds))]
        if self.is_measured:
            columns += [("measured", lambda v: _time(v.measured_seconds)),
                        ("ratio", lambda v: "" if v.measured_ratio is None else f"{v.measured_ratio:.2f}")]
        columns += [("kernels", lambda v: f"{v.kernels:,.0f}"), ("flops", lambda v: _number(v.flops)),
                    ("moved", lambda v: size(round(v.bytes_moved))), ("residuals", lambda v: size(v.residual_bytes)),
                    ("peak", lambda v: size(v.peak_bytes))]
        if self.is_measured:
            columns.append(("reserved", lambda v: "" if v.measured_peak_bytes is None else size(v.measured_peak_bytes)))
        headers = ["variant", *(header for header, _ in columns)]
        rows = [[f"{'> ' if v.name == self.recommended else '  '}{v.name}", *(cell(v) for _, cell in columns)]
                for v in (self.function, *self.variants)]
        return headers, rows

    def _line_columns(self) -> tuple[list[str], list[list[str]]]:
        rows = [[f"{100 * x.share:.1f} %", time_in_words(x.seconds), size(x.bytes_moved), size(x.residual_bytes), x.operation,
                 short(x.place) or "(no line of yours)", x.source] for x in self.lines[:MOST_LINES]]
        return ["share", "time", "moved", "residuals", "mostly", "line", ""], rows

    def __rich_console__(self, console: Console, options: Any) -> Any:
        yield Text("\n".join(self.heading))
        yield Text("")
        yield _table(*self._columns(), left=(0, 1))
        for name, why in self.left_out.items():
            yield Text(f"  {name}: not considered, {why}", style="dim")
        yield Text("")
        first, *more = self.reasons
        yield Text(first)
        yield Text(f"    {self.code}", style="bold")
        if more:
            yield Text("\n".join(more))
        yield Text("")
        yield Text(f"what dominates {self.recommended}, by line:")
        yield _table(*self._line_columns(), left=(4, 5, 6))
        if len(self.lines) > MOST_LINES:
            yield Text(f"and {len(self.lines) - MOST_LINES} more lines", style="dim")
        yield Text(self.foot, style="dim")

    @property
    def foot(self) -> str:
        """Where the prices are from."""
        how = "" if "calibrated" in self.constants else "; python -m dualrev calibrate measures those of this machine, in about 2 s"
        return f"predicted for one call of the compiled program, by the constants of {self.constants}{how}"

    def __str__(self) -> str:
        out = Console(width=WIDTH, no_color=True, highlight=False)
        with out.capture() as text:
            out.print(self)
        return "\n".join(line.rstrip() for line in text.get().splitlines())

    def _repr_html_(self) -> str:
        def paragraph(lines: Sequence[str]) -> str:
            return "<p>" + "<br>".join(map(html.escape, lines)) + "</p>"

        left_out = [f"{name}: not considered, {why}" for name, why in self.left_out.items()]
        return "\n".join([paragraph(self.heading), _html_table(*self._columns()), *([paragraph(left_out)] if left_out else []),
                          paragraph(self.reasons[:1]), f"<pre>{html.escape(self.code)}</pre>", paragraph(self.reasons[1:]),
                          paragraph([f"what dominates {self.recommended}, by line:"]), _html_table(*self._line_columns()),
                          paragraph([self.foot]), self.picture().svg])


def _listed(items: Sequence[str], most: int = 6) -> str:
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])


def _time(seconds: float | None) -> str:
    return "" if seconds is None else time_in_words(seconds)


def _number(x: float) -> str:
    for unit, factor in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if x >= factor:
            return f"{x / factor:.3g} {unit}"
    return f"{x:.0f}"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> Table:
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for i, header in enumerate(headers):
        made.add_column(header, justify="left" if i in left else "right", overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def _html_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + row(headers, "th") + "".join(row(cells, "td") for cells in rows) + "</table>"
