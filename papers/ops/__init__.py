"""How to write an op: a primitive of one's own, its derivative stated once, and the checks that it passes.  See ``README.md``."""
