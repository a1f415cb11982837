"""Pictures as files, in the format that the name asks for."""

from __future__ import annotations

import os

from dualrev.inspection.pictures.png import save_png
from dualrev.inspection.pictures.sheet import Sheet
from dualrev.inspection.pictures.svg import svg


def save(sheet: Sheet, path: str | os.PathLike[str]) -> None:
    """Write a sheet as ``.svg`` or ``.png``.

    Raises:
      ValueError: another ending.
      ImportError: matplotlib, which draws PNG, is not installed.
    """
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending == ".svg":
        with open(path, "w", encoding="utf-8") as file:
            file.write(svg(sheet))
    elif ending == ".png":
        save_png(sheet, path)
    else:
        raise ValueError(f"A picture is saved as .svg or .png; got {os.fspath(path)!r}")
