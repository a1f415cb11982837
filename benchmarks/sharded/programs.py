"""All sharded programs."""

from benchmarks.sharded import batches, models

CASES = [*batches.CASES, *models.CASES]
