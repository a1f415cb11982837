"""The notebooks of the guide run anew, and print what they show."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parent.parent.parent / "papers" / "guide" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: Kernels name the file of a cell by a number of their own; predicted times are those of a machine that may be calibrated.
CELL = re.compile(r"\b\d{6,}\.py|0x[0-9a-f]+|predicted \d.*")


def printed(outputs: Sequence[Any]) -> str:
    """What a cell prints and shows as text; figures of matplotlib and pictures are not compared."""
    texts = []
    for output in outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif "image/png" not in output.data and "image/svg+xml" not in output.data and "text/html" not in output.data:
            texts.append(output.data["text/plain"])
    return CELL.sub("CELL", "".join(texts))


def shown_kinds(outputs: Sequence[Any]) -> list[list[str]]:
    """The forms of each output but for printed text, which comes in pieces."""
    return [sorted(output.data) for output in outputs if output.output_type != "stream"]


def test_there_are_four() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["debugging_a_nan", "first_tour", "sparse_newton", "training_memory"]


@pytest.mark.filterwarnings("ignore")  # those of the kernel's sockets
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_print_what_they_show(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert path.stat().st_size < 150_000
    monkeypatch.setenv("XLA_FLAGS", "")  # as a user sees it
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent.parent.parent), os.environ.get("PYTHONPATH", "")]))
    shown = nbformat.read(path, as_version=4)
    run = NotebookClient(nbformat.read(path, as_version=4), timeout=300, kernel_name="python3").execute()
    for before, after in zip(shown.cells, run.cells, strict=True):
        if before.cell_type == "code":
            assert shown_kinds(after.outputs) == shown_kinds(before.outputs), before.source
            assert printed(after.outputs) == printed(before.outputs), before.source


def test_a_changed_output_is_noticed() -> None:
    before = [nbformat.v4.new_output("stream", text="1\n")]
    after = [nbformat.v4.new_output("stream", text="2\n")]
    assert printed(before) != printed(after)
