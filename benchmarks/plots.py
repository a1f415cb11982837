"""The plots of ``benchmarks/RESULTS.md``: ratios of time with quartiles, whose title tells what they show."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from benchmarks.records import Derivative

#: Those that run a program as Python, operation by operation, have an axis of their own: they are up to a thousand times as slow.
PANELS = {"compiled": ("dualrev", "dualrev forward", "dualrev reverse", "dualrev auto", "eager.jit"),
          "operation by operation": ("dualrev un-jitted", "eager", "jax un-jitted", "PyTorch", "autograd")}
COLOURS = {name: f"C{k}" for k, name in enumerate(name for names in PANELS.values() for name in names)}


def plot(found: Mapping[str, Mapping[str, Derivative]], title: str, path: pathlib.Path) -> None:
    import matplotlib
    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    rows = [program for program, by in found.items() if any(line.over_jax for name, line in by.items() if name in COLOURS)]
    shown = {panel: [name for name in names if any(name in found[program] for program in rows)] for panel, names in PANELS.items()}
    shown = {panel: names for panel, names in shown.items() if names} or {"compiled": []}
    figure, drawn = pyplot.subplots(1, len(shown), sharey=True, squeeze=False, figsize=(3 + 5 * len(shown), 2 + 0.5 * len(rows)),
                                    layout="constrained")
    for axes, (panel, names) in zip(drawn[0], shown.items(), strict=True):
        for place in range(0, len(rows), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="black", alpha=0.05, linewidth=0)
        for k, library in enumerate(names):
            # One above the other, or those that take as long would hide each other.
            offset = 0.8 * ((k + 0.5) / len(names) - 0.5)
            measured = [(place + offset, *line.over_jax) for place, program in enumerate(rows)
                        if (line := found[program].get(library)) and line.over_jax]
            if measured:
                at, low, middle, high = np.array(measured).T
                axes.errorbar(middle, at, xerr=(middle - low, high - middle), color=COLOURS[library], fmt="os^vD<"[k % 6],
                              label=library, markersize=5)
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.set(xscale="log", yticks=range(len(rows)), yticklabels=rows, xlabel="time over jax's compiled one (left of 1: faster)",
                 title=panel)
        least, most = axes.get_xlim()
        axes.set_xlim(min(least, 0.45), max(most, 2.2))
        axes.xaxis.set_minor_locator(ticker.LogLocator(subs=(2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}" if most < 100 * least else "")
        axes.grid(axis="x", which="both", alpha=0.2)
    drawn[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(title, fontsize="x-large")
    figure.legend(loc="outside lower center", ncols=3 * len(shown), frameon=False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
