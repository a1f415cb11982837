"""State dicts and checkpoints in files, ours and PyTorch's, and files that are refused."""

from __future__ import annotations

import functools
import io
import json
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from against_torch import fill, in_both, message

from dualrev import eager as torch


def network(t: Any) -> Any:
    return t.nn.Sequential(t.nn.Conv2d(1, 2, 3), t.nn.BatchNorm2d(2), t.nn.ReLU(), t.nn.Flatten(), t.nn.Linear(8, 3))


def test_a_state_dict_is_saved_and_loaded(tmp_path: Path) -> None:
    model = fill(torch, network(torch))
    model(torch.ones(2, 1, 4, 4))
    torch.save(model.state_dict(), tmp_path / "model.safetensors")
    state = torch.load(tmp_path / "model.safetensors")
    assert isinstance(state, OrderedDict) and set(state) == set(model.state_dict())
    other = network(torch)
    assert repr(other.load_state_dict(state)) == "<All keys matched successfully>"
    for name, x in model.state_dict().items():
        assert torch.equal(x, other.state_dict()[name]) and x.dtype == other.state_dict()[name].dtype
    assert not (tmp_path / "model.safetensors.part").exists()


def test_files_are_those_of_safetensors(tmp_path: Path) -> None:
    reader = pytest.importorskip("safetensors.numpy")
    arrays = {"a": np.arange(6, dtype=np.int8).reshape(2, 3), "b": np.array(2.5), "c": np.zeros((0, 3), np.float32),
              "d": np.array([True, False]), "e": np.array([1, 2], np.int64), "é": np.array([1, 2], np.float16)}
    reader.save_file(arrays, tmp_path / "theirs")
    loaded = torch.load(tmp_path / "theirs")
    torch.save({k: torch.tensor(x) for k, x in arrays.items()}, tmp_path / "ours")
    for found in ({k: x.numpy() for k, x in loaded.items()}, reader.load_file(tmp_path / "ours")):
        assert set(found) == set(arrays)
        for name, x in arrays.items():
            np.testing.assert_array_equal(found[name], x, strict=True)
    low = torch.tensor([1.0, 3.0], dtype=torch.bfloat16)
    torch.save({"x": low}, tmp_path / "low")
    assert torch.load(tmp_path / "low")["x"].dtype == torch.bfloat16


def test_a_state_dict_of_torch_loads_as_it_is(tmp_path: Path) -> None:
    library = pytest.importorskip("torch")
    files = pytest.importorskip("safetensors.torch")
    theirs, ours = fill(library, network(library)), network(torch)
    files.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours.load_state_dict(torch.load(tmp_path / "theirs.safetensors"))
    x = np.sin(np.arange(32.0, dtype=np.float32)).reshape(2, 1, 4, 4)
    np.testing.assert_allclose(ours(torch.tensor(x)).detach().numpy(), theirs(library.tensor(x)).detach().numpy(), 1e-5, 1e-5)
    torch.save(ours.state_dict(), tmp_path / "ours.safetensors")
    theirs.load_state_dict(files.load_file(tmp_path / "ours.safetensors"))
    assert int(theirs[1].num_batches_tracked) == 1


@pytest.mark.thorough
def test_a_checkpoint_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    def start() -> tuple[Any, Any, Any]:
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 2)

    def train(model: Any, optimizer: Any, schedule: Any, steps: int) -> list[float]:
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (model(torch.randn(5, 3)) ** 2).mean()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        return losses

    torch.manual_seed(1)
    first = start()
    train(*first, 3)
    torch.save({"parts": [x.state_dict() for x in first], "random": torch.get_rng_state(), "epoch": 3, "lr": 0.5, "name": "é",
                "best": float("inf"), "nothing": None, "pair": (1, True)}, tmp_path / "checkpoint")
    expected = train(*first, 4)
    second = start()
    state = torch.load(tmp_path / "checkpoint")
    assert {k: v for k, v in state.items() if k not in ("parts", "random")} == {
        "epoch": 3, "lr": 0.5, "name": "é", "best": float("inf"), "nothing": None, "pair": (1, True)}
    for x, s in zip(second, state["parts"], strict=True):
        x.load_state_dict(s)
    torch.set_rng_state(state["random"])
    assert train(*second, 4) == expected


def test_bad_input_names_that_do_not_fit_are_all_listed() -> None:
    def program(t: Any) -> list[Any]:
        model = network(t)
        state = dict(model.state_dict())
        del state["0.weight"], state["1.running_mean"]
        state |= {"5.weight": t.ones(1), "head": t.ones(2)}
        texts = []
        for given in (state, {**model.state_dict(), "4.weight": t.ones(2, 8), "0.bias": t.ones(3)}):
            with pytest.raises(RuntimeError) as caught:
                model.load_state_dict(given)
            texts.append(str(caught.value))
        loose = model.load_state_dict(state, strict=False)
        return [*texts, repr(loose), loose.missing_keys, loose.unexpected_keys]

    in_both(program)


def test_bad_input_files_that_are_none(tmp_path: Path) -> None:
    def file(data: bytes) -> Path:
        (tmp_path / "file").write_bytes(data)
        return tmp_path / "file"

    def read(data: bytes) -> str:
        return message(lambda: torch.load(file(data)), ValueError)

    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(12)
    assert torch.load(io.BytesIO(whole))["x"].tolist() == [0, 0, 0]
    assert "is a pickle as PyTorch's torch.save writes it" in read(b"PK\x03\x04 something")
    assert "its header would take" in read(b"no such thing at all")
    assert "its header would take 0 bytes" in read(b"")
    assert "'x', F32 of shape [3], does not fit its place, 0 to 12 of 11 bytes" in read(whole[:-1])
    assert "there is no 'F31'" in read(whole.replace(b"F32", b"F31"))
    assert "no safetensors file" in read(whole.replace(b'"shape"', b'"shade"')) and "no safetensors file" in read(
        whole.replace(b"[0, 12]", b"[0, {}]"))
    assert "no safetensors file" in read((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(FileNotFoundError):
        torch.load(tmp_path / "nowhere")


def test_a_whole_module_is_loaded_where_its_source_is_trusted() -> None:
    def program(t: Any) -> list[Any]:
        model = t.nn.Sequential(t.nn.Linear(2, 3), t.nn.BatchNorm1d(3)).eval()
        file = io.BytesIO()
        t.save(model, file)
        file.seek(0)
        refused = message(lambda: t.load(file), pickle.UnpicklingError)
        file.seek(0)
        loaded = t.load(file, map_location="cpu", weights_only=False)
        x = t.ones(4, 2)
        return [bool((loaded(x) == model(x)).all()), loaded.training, loaded[0].weight.requires_grad, list(loaded.state_dict()),
                refused.partition(".")[0]]

    in_both(program)


def test_bad_input_what_is_not_saved() -> None:
    things: list[tuple[Any, str]] = [({"model": torch.nn.Linear(1, 1)}, "the Linear at model"),
                                     ({"a": [object()]}, "the object at a.0"), ({(1, 2): 3}, "the key (1, 2)")]
    for thing, words in things:
        assert f"torch.save cannot write {words}" in message(functools.partial(torch.save, thing, io.BytesIO()), TypeError)
    with pytest.raises(TypeError, match=r"save its state_dict\(\)"):
        torch.save({"model": torch.nn.Linear(1, 1)}, io.BytesIO())
