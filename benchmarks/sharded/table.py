"""One line for each sharded program: what its gradient sends and holds, by dualrev and by jax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax

import dualrev as dr
from benchmarks.sharded.collectives import Traffic, traffic
from benchmarks.sharded.programs import CASES


@dataclass(frozen=True)
class Row:
    name: str
    ours: Traffic
    theirs: Traffic
    #: Temporary bytes of a device, ours and jax's.
    temporary: tuple[int, int]

    @property
    def is_worse(self) -> bool:
        return self.ours.count > self.theirs.count or self.ours.nbytes > self.theirs.nbytes

    def line(self) -> str:
        counts = [", ".join(f"{n} {kind}" for kind, n in sorted(found.counts.items())) for found in (self.ours, self.theirs)]
        numbers = [self.ours.nbytes, self.theirs.nbytes, *self.temporary]
        return f"| {self.name} | {counts[0]} | {counts[1]} | " + " | ".join(f"{n:,}" for n in numbers) + " |"


def rows(words: Sequence[str] = ()) -> Iterator[Row]:
    jax.config.update("jax_enable_x64", True)
    for case in CASES:
        if not words or any(word in case.name for word in words):
            mesh = case.mesh()
            compiled = [case.compiled(library, mesh) for library in (dr, jax)]
            ours, theirs = (traffic(program, mesh.size) for program in compiled)
            bytes_ = [program.memory_analysis().temp_size_in_bytes for program in compiled]
            yield Row(case.name, ours, theirs, (bytes_[0], bytes_[1]))
