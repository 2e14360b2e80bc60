from __future__ import annotations

from tests.vm.storage.conftest import bench, place, storage

__all__ = ["bench", "place", "storage"]
