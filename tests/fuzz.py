"""``python -m tests.fuzz --seconds N``: random programs over the whole table, until the time is up.

Each program is differentiated by modes that are drawn for it (``fuzz_modes.py``), to order 2, and compared with jax.  It runs operation
by operation on NumPy arrays (``host_trace.py``), so that nothing is compiled for it.  What fails is printed with its pool and number,
which draw it again (``--pool P --program N``), and at the end how many programs were tried, could be compared, and failed.
"""

from __future__ import annotations

import argparse
import gc
import os
import pathlib
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import conftest  # (the settings of the suite)
import jax
import numpy as np
from agreement import promoting
from fuzz_modes import MODES, Question, ask
from random_programs import Pool, Program
from rich.console import Console

#: Programs drawn from one pool.
PER_POOL = 1000
#: Compiled operations are dropped between pools when the process holds more than this.
MOST_BYTES = 2_500_000_000
#: One of so many programs is evaluated as jax does, un-jitted; the others with NumPy, which compiles nothing.
EAGER = 200
#: In one of so many programs, pulls are compared with jax's entry by entry.
FULL = 20
#: Modes that each program is asked in.
MODES_PER_PROGRAM = 2


def modes_of(pool: int, number: int, names: list[str]) -> list[str]:
    """The modes that are drawn for a program."""
    weights = np.array([MODES[name].weight for name in names])
    n = min(MODES_PER_PROGRAM, len(names))
    return [str(name) for name in np.random.default_rng((pool, 4, number)).choice(names, n, replace=False, p=weights / weights.sum())]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (default: 60)")
    parser.add_argument("--programs", type=int, default=None, help="how many programs at most")
    parser.add_argument("--pool", type=int, default=0, help="the pool of steps to begin with (default: 0)")
    parser.add_argument("--per-pool", type=int, default=PER_POOL, help=f"programs of one pool (default: {PER_POOL})")
    parser.add_argument("--program", type=int, default=None, help="try this program alone, in every mode, and show where it fails")
    parser.add_argument("--eager", action="store_true", help="with --program: evaluate it as jax does, un-jitted")
    parser.add_argument("--modes", default="", help=f"these modes only, with semicolons between them: {', '.join(MODES)}")
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.modes.split(";") if name.strip()] or list(MODES)
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if arguments.program is not None:
        with promoting():
            asked = Pool(arguments.pool).program(arguments.program)
            say(repr(asked))
            question = Question(asked, arguments.program, is_full=True)
            for name in names:
                try:
                    say(f"{name}: {'agrees' if ask(name, question, arguments.eager) else 'nothing to compare'}")
                except Exception:  # each mode is tried, whatever another one does
                    say(f"{name}: FAILED\n{traceback.format_exc()}")
        return 0

    tried = compared = 0
    failures: list[str] = []
    start, start_of_cpu, pool = time.monotonic(), time.process_time(), arguments.pool

    def report() -> str:
        return (f"{tried:,} programs, {compared:,} compared, {len(failures):,} failures in {time.monotonic() - start:.0f} s, "
                f"{time.process_time() - start_of_cpu:.0f} s of processor time")

    def is_over() -> bool:
        return time.monotonic() - start > arguments.seconds or (arguments.programs is not None and tried >= arguments.programs)

    while not is_over():
        drawn = Pool(pool)
        with promoting():
            for number in range(arguments.per_pool):
                if is_over():
                    break
                tried += 1
                chosen: str | None = None
                program: Program | None = None
                try:
                    program = drawn.program(number)
                    question = Question(program, number, is_full=number % FULL == 0)
                    compared += question.has_answer
                    for chosen in modes_of(pool, number, names):
                        ask(chosen, question, is_eager=number % EAGER == EAGER - 1)
                except Exception as error:  # whatever goes wrong in one program is reported, and the others still run
                    failures.append(f"--pool {pool} --program {number}: {chosen}: {program}\n{type(error).__name__}: {error}")
                    say(failures[-1])
        del drawn
        if conftest.held_bytes() > MOST_BYTES:
            jax.clear_caches()
            gc.collect()
        pool += 1
        say(f"# {report()}")
    say(f"{report()} (pools {arguments.pool} to {pool - 1})")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
