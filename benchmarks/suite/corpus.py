"""The corpus: gradients of programs as users write them, over jax's and over their own function."""

from __future__ import annotations

import statistics

from benchmarks import corpus
from benchmarks.programs import CORPUS
from benchmarks.scenarios import SCENARIOS


class Corpus:
    """Ratios of rounds in one process, after the gradients were found equal; each is of dualrev's gradient."""

    params = ([program.name for program in CORPUS],)
    param_names = ("program",)
    unit = "times"
    #: Of a function of six hundred entries one by one, one gradient compiles for a minute.
    timeout = 600

    def _compiled(self, program: str) -> corpus.Compiled:
        return corpus.compiled(SCENARIOS[program])

    def _over(self, program: str, other: int) -> float:
        return statistics.median(line[corpus.OURS] / line[other] for line in self._compiled(program).times(1.0))

    def track_time_over_jax(self, program: str) -> float:
        return self._over(program, corpus.JAX)

    def track_time_over_function(self, program: str) -> float:
        return self._over(program, corpus.FUNCTION)

    def track_temporary_bytes_over_jax(self, program: str) -> float:
        ours, theirs, _ = self._compiled(program).temporary_bytes()
        if not theirs:
            raise NotImplementedError(f"{program} takes none in jax")
        return ours / theirs

    def track_compiling_over_jax(self, program: str) -> float:
        seconds = self._compiled(program).seconds
        return seconds[corpus.OURS] / seconds[corpus.JAX]

    def track_tracing_over_jax(self, program: str) -> float:
        found = SCENARIOS[program]
        ours, theirs = corpus.tracing(found, corpus.arguments(found), 1.0)
        return ours / theirs
