"""Each process within its part of a GPU's memory, and what it keeps given back."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.on_ray import gpu_memory


class FakedCuda:
    """torch.cuda as far as it is asked."""

    def __init__(self, there: bool) -> None:
        self.there, self.fractions, self.emptied = there, list[float](), 0

    def is_available(self) -> bool:
        return self.there

    is_initialized = is_available

    def set_per_process_memory_fraction(self, fraction: float) -> None:
        self.fractions.append(fraction)

    def empty_cache(self) -> None:
        self.emptied += 1


def with_cuda(monkeypatch: pytest.MonkeyPatch, there: bool) -> FakedCuda:
    cuda = FakedCuda(there)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]
    return cuda


def test_a_part_of_a_gpu_is_a_part_of_its_memory(monkeypatch: pytest.MonkeyPatch):
    cuda = with_cuda(monkeypatch, True)
    for gpus in (0, 1, 2, 0.25):
        gpu_memory.stay_within(gpus)
    assert cuda.fractions == [0.25]
    elsewhere = with_cuda(monkeypatch, False)
    gpu_memory.stay_within(0.25)
    assert elsewhere.fractions == []


def test_who_holds_no_part_does_not_load_torch_for_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # type: ignore[arg-type]  # to import it is an error
    for gpus in (0, 1, 8):
        gpu_memory.stay_within(gpus)
    gpu_memory.rest()


def test_at_rest_what_is_kept_is_forgotten_before_the_memory_is_given_back(monkeypatch: pytest.MonkeyPatch):
    said = list[Any]()
    cuda = with_cuda(monkeypatch, True)
    monkeypatch.setattr(gpu_memory, "_forget", [])
    gpu_memory.kept_until_rest(lambda: said.append(cuda.emptied))
    gpu_memory.rest()
    assert said == [0]
    assert cuda.emptied == 1
    elsewhere = with_cuda(monkeypatch, False)
    gpu_memory.rest()
    assert elsewhere.emptied == 0


def test_an_evaluators_model_is_kept_until_rest(monkeypatch: pytest.MonkeyPatch):
    from evaluation import loading

    monkeypatch.setitem(loading._kept, ("a model",), object())
    gpu_memory.rest()
    assert loading._kept == {}


@pytest.mark.gpu
def test_beyond_its_part_a_process_runs_out_of_memory():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA here")
    gpu_memory.stay_within(0.1)
    try:
        whole = torch.cuda.get_device_properties(0).total_memory
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(int(0.2 * whole), dtype=torch.uint8, device="cuda")
        torch.empty(int(0.05 * whole), dtype=torch.uint8, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
