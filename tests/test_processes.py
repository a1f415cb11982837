"""Runs of 2 and 4 processes on this machine: numbers of one process, errors within bounded time, continuation from a checkpoint."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest

import dualrev as dr
from dualrev.inspection.checking import processes as checking

ROOT = pathlib.Path(__file__).parent.parent
#: Seconds after which a run is ended, and the test has failed.
LONGEST = 240

pytestmark = pytest.mark.promotes


def run(task: str, n: int, folder: pathlib.Path, longest: float = LONGEST) -> list[tuple[int, str]]:
    """Exit status and errors of ``n`` processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    each = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // n}", "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT), "COORDINATOR": address, "PROCESSES": str(n), "FOLDER": str(folder)}
    started = []
    for i in range(n):
        with open(folder / f"errors.{i}", "w") as errors:
            started.append(subprocess.Popen([sys.executable, "-m", "tests.processes", task], cwd=ROOT, env={**each, "PROCESS": str(i)},
                                            stdout=errors, stderr=errors))
    end = time.monotonic() + longest
    try:
        status = [process.wait(max(end - time.monotonic(), 0.1)) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [(s, (folder / f"errors.{i}").read_text()) for i, s in enumerate(status)]


def assert_ended_well(found: list[tuple[int, str]]) -> None:
    for i, (status, errors) in enumerate(found):
        assert status == 0, f"process {i}: {errors[-2000:]}"


@pytest.mark.parametrize("n", [2, 4])
def test_numbers_are_those_of_one_process(n: int, tmp_path: pathlib.Path) -> None:
    assert_ended_well(run("numbers", n, tmp_path))
    for name, tree in processes.numbers().items():
        for i in range(n):
            with np.load(tmp_path / f"{name}.{i}.npz") as file:
                found = [file[key] for key in file.files]
            for x, y in zip(found, jax.tree.leaves(tree), strict=True):
                np.testing.assert_allclose(x, y, rtol=0, atol=1e-12 * np.abs(y).max(), err_msg=name)


@pytest.mark.parametrize("n", [2, 4])
def test_a_process_that_dies_ends_the_others(n: int, tmp_path: pathlib.Path) -> None:
    """By gloo, whose connection is closed, or by the coordinator, which misses it; both say so."""
    found = run("dies", n, tmp_path, longest=120)
    assert found[-1][0] == 3
    for status, errors in found[:-1]:
        assert status != 0
        assert any(text in errors for text in ("Connection closed by peer", "Connection reset by peer", "heartbeat", "Gloo"))


@pytest.mark.parametrize("n", [2, 4])
def test_processes_that_disagree_about_shapes_all_end(n: int, tmp_path: pathlib.Path) -> None:
    for status, errors in run("differs", n, tmp_path, longest=120):
        assert status != 0
        mesh = "as P() on a mesh (data: 8)"
        assert f"parameters['w0'] differs: process 0 has float64[8,16] {mesh}, process {n - 1} has float64[8,24] {mesh}" in errors


def test_a_process_that_does_not_come_is_named(tmp_path: pathlib.Path) -> None:
    found = run("is_late", 2, tmp_path, longest=120)
    assert found[0][0] != 0
    assert "TimeoutError: check_processes: parameters: process 1 of 2 said nothing within 2 s" in found[0][1]


@pytest.mark.skipif(importlib.util.find_spec("orbax") is None, reason="needs orbax-checkpoint, of the extra 'papers'")
@pytest.mark.parametrize("n", [2, 4])
def test_a_run_continues_from_its_checkpoint(n: int, tmp_path: pathlib.Path) -> None:
    """To the last bit, in other processes than those that wrote it."""
    assert_ended_well(run("resumes", n, tmp_path))
    assert_ended_well(run("resumes", n, tmp_path))
    for i in range(n):
        with np.load(tmp_path / f"continued.{i}.npz") as continued, np.load(tmp_path / f"resumed.{i}.npz") as resumed:
            assert len(continued.files) == 3
            for key in continued.files:
                np.testing.assert_array_equal(continued[key], resumed[key])


# ------------------------------------------------------------------------------------------- the check, without other processes


def test_one_process_agrees_with_itself() -> None:
    dr.testing.check_processes({"w": jnp.ones((2, 3)), "name": None})


@pytest.mark.parametrize(("theirs", "error", "message"), [
    ('[["[\'w\']", "float64[2,4]"]]', ValueError, r"\['w'\] differs: process 0 has float64\[2,3\], process 1 has float64\[2,4\]"),
    ('[["[\'v\']", "float64[2,3]"]]', ValueError, r"process 0 has \['w'\], process 1 has \['v'\]"),
    (None, TimeoutError, "process 1 of 2 said nothing within 3 s"),
])
def test_what_differs_is_named(theirs: str | None, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "exchange", lambda key, text, seconds: [text, theirs])
    with pytest.raises(error, match=message):
        dr.testing.check_processes({"w": np.ones((2, 3))}, "parameters", timeout=3)
