"""What all tests have in common: they do not wait for the disk, and what is imported is not searched for garbage."""

import gc
import os

import pytest


def _stays_in_memory(descriptor: int) -> None:
    """In the place of `os.fsync`: no test cuts the power, and forcing thousands of files to a disk takes minutes."""


os.fsync = _stays_in_memory


@pytest.fixture(scope="module", autouse=True)
def _libraries_stay() -> None:
    """What is imported by now is no garbage: the `gc.collect()` after each training would look at all of it."""
    gc.collect()
    gc.freeze()
