"""Pictures of a pattern and its colours: text for a terminal, SVG for a notebook.

An entry is drawn in the colour of the pass that it is read from; what is read from a pull has a frame.  Large matrices are drawn in
cells, each in the colour of its first entry.
"""

from __future__ import annotations

import numpy as np

from dualrev.sparse.colouring.recovery import Colouring

#: The most rows and columns of characters, and of squares.
TEXT_SIZE, SVG_SIZE = 32, 128
LETTERS = "123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def passes_of(colouring: Colouring) -> np.ndarray:
    """The pass that each entry is read from: forward colours first, then reverse colours; -1 where it is substituted."""
    m, n = colouring.positions.shape
    source = colouring.source
    if colouring.levels:
        flat = np.concatenate([level.source for level in colouring.levels])
        source = flat[source]
    start = colouring.n_forward * m
    found: np.ndarray = np.where(source < start, source // max(m, 1), colouring.n_forward + (source - start) // max(n, 1))
    return found


def cells(colouring: Colouring, most: int) -> np.ndarray:
    """A grid of at most ``most`` by ``most`` cells: the pass of an entry in each, or -1 where there is none."""
    positions = colouring.positions
    m, n = positions.shape
    height, width = min(m, most), min(n, most)
    grid = np.full((height, width), -1)
    if positions.nnz:
        # In reverse, so that the first entry of a cell is written last.
        grid[(positions.rows * height // m)[::-1], (positions.columns * width // n)[::-1]] = passes_of(colouring)[::-1]
    return grid


def text(colouring: Colouring) -> str:
    """A line for each row of cells: a character for the pass, a point where there is no entry."""
    return "\n".join("".join("·" if k < 0 else LETTERS[k % len(LETTERS)] for k in row) for row in cells(colouring, TEXT_SIZE).tolist())


def svg(colouring: Colouring) -> str:
    """The picture as an SVG document."""
    grid = cells(colouring, SVG_SIZE)
    height, width = grid.shape
    size = max(4, 512 // max(height, width, 1))
    n_passes = colouring.n_forward + colouring.n_reverse
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * size}" height="{height * size}" '
             f'viewBox="0 0 {width * size} {height * size}"><rect width="100%" height="100%" fill="#f4f4f4"/>']
    for i, j in zip(*np.nonzero(grid >= 0), strict=True):
        k = int(grid[i, j])
        frame = ' stroke="#222" stroke-width="1"' if k >= colouring.n_forward else ""
        hue = 360.0 * k / max(n_passes, 1)
        parts.append(f'<rect x="{j * size}" y="{i * size}" width="{size}" height="{size}" fill="hsl({hue:.0f},65%,55%)"{frame}/>')
    return "".join([*parts, "</svg>"])
