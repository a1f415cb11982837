"""All sharded programs."""

from benchmarks.sharded import batches, corpus, models

CASES = [*batches.CASES, *models.CASES, *corpus.CASES]
