"""What asv measures: ``asv run --config benchmarks/asv.conf.json``."""

import pathlib
import sys

# At the end: where dualrev is installed, that one is measured, and this folder gives the programs alone.
sys.path.append(str(pathlib.Path(__file__).parents[2]))
