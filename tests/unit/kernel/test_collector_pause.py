"""Garbage is collected again after much was read, also when that failed."""

from __future__ import annotations

import gc

import pytest

from fleet.kernel.collector import all_alive


@pytest.mark.parametrize("is_on", [True, False])
def test_collection_is_off_within_and_as_it_was_after(is_on: bool) -> None:
    gc.enable() if is_on else gc.disable()
    try:
        with all_alive():
            assert not gc.isenabled()
        assert gc.isenabled() is is_on
        with pytest.raises(ValueError, match="broken"), all_alive():
            raise ValueError("broken")
        assert gc.isenabled() is is_on
    finally:
        gc.enable()
