"""The benchmarks' own parts: a guard that sees growth, libraries that agree before they are timed."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from benchmarks import compare, guard, stages
from benchmarks.counts import python_calls
from benchmarks.libraries import LIBRARIES, DisagreementError, checked, reference
from benchmarks.scenarios import science
from dualrev.problems.scenario import Scenario

pytestmark = pytest.mark.thorough

SMALL = science.rosenbrock(8)


def test_guard_fails_on_growth_and_on_nothing_else():
    before = {"a program": {"equations": 100, "bytes": 1000, "tape bytes": 0}}
    assert guard.grown({"a program": {"equations": 102, "bytes": 900, "tape bytes": 0}}, before) == []
    lines = guard.grown({"a program": {"equations": 103, "bytes": 1000, "tape bytes": 8}}, before)
    assert lines == ["a program: equations grew from 100 to 103, by 3.0%", "a program: tape bytes grew from 0 to 8"]
    assert "no longer counted" in guard.grown({}, before)[0]
    assert "--write" in guard.grown({**before, "new": {}}, before)[0]


def test_guard_counts_what_a_longer_program_adds():
    short, long = (guard.measured([science.rosenbrock(8)], [science.sines(n)]) for n in (2, 4))
    renamed = {name.replace("2 sines", "4 sines"): counts for name, counts in short.items()}
    assert guard.grown(long, renamed) == [line for line in guard.grown(long, renamed) if "Python calls" in line] != []
    assert guard.measured([SMALL], []) == guard.measured([SMALL], [])


def test_guard_writes_then_passes_then_fails(tmp_path, monkeypatch):
    counts = {"a program": {"equations": 100}}
    monkeypatch.setattr(guard, "baseline_path", lambda: tmp_path / "made" / "counts.json")
    monkeypatch.setattr(guard, "measured", lambda: counts)
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr("sys.argv", ["guard", "--write"])
    assert guard.main() == 0
    assert json.loads((tmp_path / "made" / "counts.json").read_text()) == counts
    monkeypatch.setattr("sys.argv", ["guard"])
    assert guard.main() == 0
    counts["a program"]["equations"] = 103
    assert guard.main() == 1


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # PyTorch's own use of it, for pushes
@pytest.mark.parametrize(("call", "program"), [("gradient", SMALL), ("jacfwd", science.rosenbrock_errors(4))])
@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_find_the_same(library, call, program):
    try:
        checked(library, program, call, reference(program, call), warm=0)
    except NotImplementedError as why:
        pytest.skip(str(why))


def test_a_wrong_result_is_not_timed():
    def twice(x):
        return 2 * jax.numpy.sum(x)

    with pytest.raises(DisagreementError, match="dualrev, gradient of twice: differs by 5"):
        checked("dualrev", Scenario("twice", twice, lambda: (np.ones(3),)), "gradient", [np.full(3, 4.0)])
    with pytest.raises(DisagreementError, match="shapes"):
        checked("dualrev", Scenario("twice", twice, lambda: (np.ones(3),)), "gradient", [np.ones(2)])


def test_results_of_the_imperative_face_are_waited_for(monkeypatch):
    library = LIBRARIES["eager.jit"]
    waited: list[object] = []
    monkeypatch.setattr(library, "numbers", waited.append)
    library.prepare(SMALL, "gradient")()
    assert len(waited) == 1


def test_missing_peer_is_left_out_with_a_note(monkeypatch):
    monkeypatch.setattr("importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(f"no {name}")))
    with pytest.raises(NotImplementedError, match="PyTorch: no torch"):
        type(LIBRARIES["PyTorch"])("PyTorch", "torch").prepare(SMALL, "gradient")


def test_stages_are_timed_of_a_new_program_each_time():
    def gradient(x):
        return jax.grad(lambda x: jax.numpy.sum(jax.numpy.sin(x) ** 2))(x)

    found = [stages.seconds(gradient, (np.ones(3),)) for _ in range(4)]
    for stage in zip(*found, strict=True):
        assert min(stage) > 0.05 * max(stage[1:])  # what is found in a cache takes less than a hundredth


def test_first_calls_are_ratios_and_counts():
    found = stages.first_call(SMALL, 0.0)
    assert len(found.ours) == len(found.theirs) == len(found.function) == 5
    assert len(found.cells()) == len(stages.HEADINGS)


def test_comparison_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["compare", SMALL.name, "--calls", "hessian", "--libraries", "dualrev", "jax", "--seconds", "0.01",
                                     "--out", str(tmp_path)])
    monkeypatch.setattr(compare, "CALLS", {"hessian": [SMALL]})
    compare.main()
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| Rosenbrock, 8 |" in text and f"jax {jax.__version__}" in text
    assert (tmp_path / "RESULTS-hessian.png").stat().st_size > 1000


def test_python_calls_are_counted():
    def one():
        return None

    assert python_calls(lambda: (one(), one())) == 3
