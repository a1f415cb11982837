"""The benchmarks' own parts: a guard that sees growth, libraries that agree before they are timed."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from benchmarks import compare, corpus, guard, records, report, stages
from benchmarks.counts import python_calls
from benchmarks.libraries import LIBRARIES, DisagreementError, checked, reference
from benchmarks.programs import CORPUS, GUARDED
from benchmarks.scenarios import SCENARIOS, loops_ode, science
from dualrev.problems.scenario import Scenario

pytestmark = pytest.mark.thorough

SMALL = science.rosenbrock(8)
LOOP = loops_ode.van_der_pol(1, 4)


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
    assert found.record().equations == found.equations and found.record().first_call > 0


def test_comparison_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["compare", SMALL.name, "--calls", "hessian", "--libraries", "dualrev", "jax", "dualrev auto",
                                     "--seconds", "0.01", "--out", str(tmp_path)])
    monkeypatch.setattr(compare, "CALLS", {"hessian": [SMALL]})
    (tmp_path / "RESULTS.md").write_text("# Results\n\nWritten by hand.\n")
    for _ in range(2):  # the second time, the same places are filled again
        compare.main()
        text = (tmp_path / "RESULTS.md").read_text()
        assert text.count("| Rosenbrock, 8 | **") == 1 and f"jax {jax.__version__}" in text and "Written by hand." in text
    assert "- dualrev auto has no figure for any program: only Jacobians choose between modes so." in text
    assert (tmp_path / "RESULTS-hessian.png").stat().st_size > 1000


def test_the_page_shows_the_figures_that_are_kept():
    """``python -m benchmarks.report`` would change no table of the page."""
    page = (records.FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    lines = records.read("derivatives")
    for call in report.QUESTIONS:
        assert report.short_table(report.found_for(call, lines)) in page, f"run python -m benchmarks.report {call}"
    for part in ("summary", "corpus", "stages", "growth"):
        assert report.PARTS[part](records.FOLDER).strip() in page, f"run python -m benchmarks.report {part}"


def test_records_are_read_as_they_were_written(tmp_path):
    three = (0.5, 1.0, 2.0)
    lines = [records.Derivative("jvp", "one", "jax", three, None, None), records.Derivative("jvp", "one", "dualrev", three, three, 1.5)]
    records.add("derivatives", lines, tmp_path)
    assert records.read("derivatives", tmp_path) == lines
    records.add("derivatives", [dataclasses.replace(lines[1], over_function=2.5)], tmp_path)
    assert [line.over_function for line in records.read("derivatives", tmp_path)] == [None, 2.5]


# -------------------------------------------------------------------------------------------------------------- corpus


def corpus_run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(corpus, "chosen", lambda tags, pattern: [LOOP])
    monkeypatch.setattr("sys.argv", ["corpus", "--seconds", "0.01", *map(str, arguments)])
    return corpus.main()


def test_corpus_is_measured_written_and_shown(tmp_path, monkeypatch, capsys):
    file = tmp_path / "figures.json"
    assert corpus_run(monkeypatch, "--json", file) == 0
    found = corpus.read(file)[LOOP.name]
    assert found.jax == jax.__version__ and found.difference < 1e-7 and found.rounds >= 5
    assert min(*found.milliseconds, *found.over_jax, *found.over_function, *found.compiling, *found.tracing) > 0
    capsys.readouterr()
    monkeypatch.setattr(corpus, "measured", None)  # what is shown is not measured
    assert corpus_run(monkeypatch, "--show", file, "--against", file) == 0
    shown = capsys.readouterr().out
    assert f"{found.over_jax[1]:.2f} -> {found.over_jax[1]:.2f}" in shown and f"mean {found.over_jax[1]:.2f}" in shown
    line, = compare.corpus_records([file])
    assert (line.release, line.program, line.over_jax) == (jax.__version__, LOOP.name, found.over_jax)
    records.add("corpus", [line], tmp_path)
    report.write(["corpus"], tmp_path)
    assert f"| {LOOP.name} | {found.over_jax[1]:.2f} (" in (tmp_path / "RESULTS.md").read_text()


def test_corpus_in_parts_is_one_file(tmp_path):
    file = tmp_path / "figures.json"
    three = (0.9, 1.0, 1.1)
    figures = corpus.Figures("one", "0", three, three, three, three, (8, 0, 4), three, (1.0, 2.0), 5, 0.0)
    corpus.write(file, [figures])
    corpus.write(file, [dataclasses.replace(figures, name="two"), dataclasses.replace(figures, rounds=7)])
    assert {name: f.rounds for name, f in corpus.read(file).items()} == {"one": 7, "two": 5}
    assert corpus.read(file)["one"] == dataclasses.replace(figures, rounds=7)
    assert figures.memory is None


def test_corpus_tells_of_a_gradient_that_differs(monkeypatch, capsys):
    monkeypatch.setattr(corpus, "DERIVATIVES", (lambda f: jax.grad(lambda x: 1.001 * f(x)), jax.grad, None))
    assert corpus_run(monkeypatch) == 1
    assert capsys.readouterr().out.count(f"not measured: {LOOP.name}: AssertionError: results differ by") == 2


def test_corpus_traces_new_functions():
    """In each of five rounds or more, both gradients call the program: neither is found in a cache."""
    calls = 0

    def square(x):
        nonlocal calls
        calls += 1
        return jax.numpy.sum(x**2)

    program = Scenario("square", square, lambda: (np.ones(3),))
    corpus.compiled(program)
    assert calls == 3
    corpus.tracing(program, corpus.arguments(program), 0.0)
    assert calls >= 3 + 2 * 5


def test_corpus_is_at_three_sizes_and_counted_at_one():
    names = {scenario.name for scenario in CORPUS}
    sized = {name.removesuffix(", size 32") for name in names if name.endswith(", size 32")}
    assert len(sized) == 11 and {f"{name}, size {n}" for name in sized for n in ("1", "32", "1,024")} <= names
    assert {f"{name}, size 32" for name in sized} <= {scenario.name for scenario in GUARDED} <= {s.name for s in SCENARIOS}


def test_python_calls_are_counted():
    def one():
        return None

    assert python_calls(lambda: (one(), one())) == 3
