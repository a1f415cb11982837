"""Settings for every test: 64-bit arithmetic on 8 virtual CPU devices, and little time spent optimizing programs that run once."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

import pytest

IS_NEWEST = not importlib.metadata.version("jax").startswith("0.10.")

flags = [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
if not IS_NEWEST:
    # Half of the compiler's time for a tiny program. Later versions neither need the flag nor know it.
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(flags)

import jax  # noqa: E402  (reads the environment)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# The suite compiles thousands of tiny programs; compiling dominates, running does not.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_traceback_in_locations_limit", 0)  # the compiler is told of no Python frames: our errors find theirs elsewhere


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--thorough", action="store_true", help="on a newer jax, also run what says more of dualrev than of jax")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the oldest jax everything runs; on a newer one every row and every feature, but not every line of the table."""
    if IS_NEWEST and not config.getoption("--thorough"):
        left = [item for item in items if item.get_closest_marker("thorough")]
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left)
