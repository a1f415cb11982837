"""Executed notebooks as pages: their text, their code, and the outputs that are stored in them."""

from __future__ import annotations

import base64
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _text(lines: str | Sequence[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def _plain(text: str) -> str:
    return f"``` {{ .text .cell-result }}\n{ANSI.sub('', text).rstrip()}\n```\n"


def _output(output: Mapping[str, Any], picture: str, pictures: dict[str, bytes]) -> str:
    if output["output_type"] == "stream":
        return _plain(_text(output["text"]))
    if output["output_type"] == "error":
        return _plain(f"{output['ename']}: {output['evalue']}")
    data = output["data"]
    if "image/png" in data:
        pictures[picture] = base64.b64decode(_text(data["image/png"]))
        return f"![result of the cell above]({pathlib.PurePosixPath(picture).name})\n"
    shown = data.get("text/html") or data.get("image/svg+xml")
    if shown is not None:
        block = re.sub(r"\n\s*\n", "\n", _text(shown).strip())  # Markdown ends a block of HTML at an empty line
        return f'<div class="cell-output">{block}</div>\n'
    return _plain(_text(data["text/plain"]))


def page_of(path: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """The Markdown of a notebook, and the pictures that it shows, by their names beside it."""
    pictures: dict[str, bytes] = {}
    parts: list[str] = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "markdown":
            parts.append(_text(cell["source"]).replace(".ipynb)", ".md)").rstrip() + "\n")
            continue
        parts.append(f"```python\n{_text(cell['source']).rstrip()}\n```\n")
        parts += [_output(output, f"notebooks/{path.stem}_{number}_{i}.png", pictures) for i, output in enumerate(cell["outputs"])]
    return "\n".join(parts), pictures
