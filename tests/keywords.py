"""The type of keyword options, written from the fields that state them: ``dualrev/options/keywords.py``.

``python -m tests.keywords`` writes the file; a test fails when it is stale.
"""

from __future__ import annotations

import pathlib
import sys
from collections import defaultdict

import dualrev
from dualrev.options.fields import classes_in, keyword_class
from dualrev.options.settings import CallSettings

FILE = pathlib.Path(dualrev.__file__).parent / "options" / "keywords.py"
HEAD = '''"""The keyword options of every function that differentiates, for readers and for type checkers.

Written by ``python -m tests.keywords`` from :mod:`dualrev.options.settings`, where options are stated; a test fails when it is stale.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

'''


def text() -> str:
    modules: dict[str, list[str]] = defaultdict(list)
    for kind in classes_in(CallSettings):
        modules[kind.__module__].append(kind.__name__)
    imports = [f"from {module} import {', '.join(names)}\n" for module, names in sorted(modules.items())]
    return HEAD + "".join(imports) + "\n\n" + keyword_class(CallSettings, "Options", "Options of every function that differentiates.")


if __name__ == "__main__":
    FILE.write_text(text())
    sys.stdout.write(f"{FILE.name}: written\n")
