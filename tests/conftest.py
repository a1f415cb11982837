"""Settings for every test: strict promotion, 64-bit arithmetic on 8 virtual CPU devices, and little time spent optimizing programs
that run once.

What is compared with jax at length has the mark ``thorough`` and runs with ``--thorough``, and so has what is listed in ``long.txt``:
tests that took three quarters of a second or more each, so that those that run by default take a few minutes together.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import os
import pathlib
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

flags = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
if importlib.metadata.version("jax").startswith("0.10."):
    # Half of the compiler's time for a tiny program. Later versions neither need the flag nor know it.
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(flags)

import jax  # noqa: E402  (reads the environment)

jax.config.update("jax_enable_x64", True)
# The package promotes nothing implicitly.  A test whose own formulas need it says so: agreement.promoting(), or the mark `promotes`.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# The suite compiles thousands of tiny programs; compiling dominates, running does not.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_traceback_in_locations_limit", 0)  # the compiler is told of no Python frames: our errors find theirs elsewhere


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    return int(index), int(count)


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--thorough", action="store_true", help="run everything: also what compares at length (the mark 'thorough')")
    parser.addoption("--part", type=_part, metavar="I/N", help="with --thorough: one of N parts of the lists of cases; of what runs "
                     "without --thorough, of lists that are long")
    parser.addoption("--check-leaks", action="store_true", help="fail where a tracer outlives its trace (jax_check_tracer_leaks)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--check-leaks"):
        jax.config.update("jax_check_tracer_leaks", True)


#: The number of cases from which on a list of tests that take little time each is divided into parts too.
LONG_LIST = 20
LONG = frozenset((pathlib.Path(__file__).parent / "long.txt").read_text().splitlines())


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without ``--thorough``, what has that mark is deselected, and counted as such; with ``--part``, all cases of other parts are."""
    for item in items:
        if item.nodeid in LONG:
            item.add_marker(pytest.mark.thorough)
    part = config.getoption("--part")

    cases = Counter(item.nodeid.split("[")[0] for item in items)

    def is_of_another_part(item: pytest.Item) -> bool:
        is_listed = "[" in item.name and (item.get_closest_marker("thorough") or cases[item.nodeid.split("[")[0]] >= LONG_LIST)
        return part is not None and bool(is_listed) and zlib.crc32(item.nodeid.encode()) % part[1] != part[0]

    is_left = {item for item in items if is_of_another_part(item)
               or (item.get_closest_marker("thorough") and not config.getoption("--thorough"))}
    config.hook.pytest_deselected(items=[item for item in items if item in is_left])
    items[:] = [item for item in items if item not in is_left]


#: Compiled programs are dropped when a process holds more than this: two workers and what tests start stay below 6 GB, and 8 GB with
#: ``--thorough``, which would compile too much anew.
MOST_BYTES = 2_000_000_000
MOST_BYTES_THOROUGH = 3_000_000_000


def held_bytes() -> int:
    """What the process holds in memory, where Linux says it; else 0."""
    if not sys.platform.startswith("linux"):
        return 0
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    if held_bytes() > (MOST_BYTES_THOROUGH if item.config.getoption("--thorough") else MOST_BYTES):
        jax.clear_caches()
        gc.collect()
        if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc: what was freed goes back to the system
            trim(0)


@pytest.fixture(autouse=True)
def promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """jax's own promotion for tests with the mark ``promotes``."""
    if request.node.get_closest_marker("promotes"):
        from agreement import promoting

        with promoting():
            yield
    else:
        yield
