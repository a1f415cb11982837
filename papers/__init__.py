"""Reproductions of papers, how to write an op and a mode, tutorials and guides; ``python -m papers`` lists the reproductions."""
