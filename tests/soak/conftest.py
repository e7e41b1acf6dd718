"""Soak tests take minutes or hours: they run where `-m soak` asks for them, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in config.option.markexpr:
        return
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    items[:] = [item for item in items if item not in here]
    config.hook.pytest_deselected(items=here)
