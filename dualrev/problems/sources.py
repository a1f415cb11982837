"""The data that the problems read, shipped with the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np

SPECIES = ("setosa", "versicolor", "virginica")


@cache
def iris() -> tuple[np.ndarray, np.ndarray]:
    """150 flowers' sepal length, sepal width, petal length, petal width in cm, (150, 4), and their species 0, 1, 2, (150,).

    R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7 (1936) 179-188, Table I;
    measured by E. Anderson.  The file is scikit-learn's, which agrees with the paper and with R.  Another variant is common,
    the UCI repository's: its flowers 35 and 38 are both 4.9, 3.1, 1.5, 0.1, where the paper has 4.9, 3.1, 1.5, 0.2 and
    4.9, 3.6, 1.4, 0.1; see Bezdek et al., IEEE Trans. Fuzzy Systems 7 (1999) 368-369.
    """
    lines = files("dualrev.problems").joinpath("data/iris.csv").read_text(encoding="ascii").splitlines()[1:]
    table = np.array([[float(entry) for entry in line.split(",")] for line in lines])
    return table[:, :4], table[:, 4].astype(np.int32)


@cache
def text() -> tuple[np.ndarray, int]:
    """A text as character numbers, (length,), and the size of its alphabet.

    The first stanza of "Jabberwocky": L. Carroll, Through the Looking-Glass (1871), in the public domain; in lower case.
    """
    characters = files("dualrev.problems").joinpath("data/jabberwocky.txt").read_text(encoding="ascii").lower()
    alphabet, numbers = np.unique(list(characters), return_inverse=True)
    return numbers.astype(np.int32), len(alphabet)
