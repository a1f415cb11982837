"""dualrev as a tool of GradBench: ``python -m benchmarks.gradbench`` answers its messages on standard input and output.

Twelve problems, in double precision; derivatives by dualrev alone.  GradBench drives any command; from its folder:

    ./gradbench run --eval "./gradbench repo eval gmm" --tool "sh -c 'cd path/to/this/repository && python -m benchmarks.gradbench'"

The Dockerfile beside this file says the same for an image.
"""

from __future__ import annotations

import io
import os
import sys

import jax

from benchmarks.gradbench.server import serve


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    # Answers have standard output for themselves: what a library prints goes to standard error.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace"), out)


if __name__ == "__main__":
    main()
