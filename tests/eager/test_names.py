"""The page of PyTorch's names is current, and so is the list that it compares with."""

from __future__ import annotations

import pytest
from offered import LIST, PAGE, listing, offered, release, text


def test_the_list_of_names_is_that_of_its_release() -> None:
    if release() is None:
        pytest.skip("PyTorch is not installed; the committed list is used")
    if f"PyTorch {release()} " not in LIST.read_text().splitlines()[0]:
        pytest.skip("the list is of another release of PyTorch")
    if LIST.read_text() != (current := listing()):
        LIST.write_text(current)
        pytest.fail(f"{LIST.name} was stale; it has been written again")


def test_the_page_of_names_is_current() -> None:
    if PAGE.read_text() != (current := text()):
        PAGE.write_text(current)
        pytest.fail(f"{PAGE.name} was stale; it has been written again")


def test_what_tutorials_use_is_offered() -> None:
    found = {place: set(have) for place, (have, _) in offered().items()}
    assert found["torch.nn"] >= {"Linear", "Conv2d", "LSTM", "BatchNorm2d", "MultiheadAttention", "CrossEntropyLoss", "Sequential"}
    assert found["torch.optim"] >= {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad"}
    assert found["torch"] >= {"save", "load", "no_grad", "where"}
    assert sum(map(len, found.values())) > 700
