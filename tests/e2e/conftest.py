"""One installation for all tests of a session that only use it; those that harm one make their own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.kit.cache import CACHE
from tests.kit.installation import MAGS, Installation
from tests.kit.neighbour import NETWORK


@pytest.fixture(scope="session")
def base_image() -> None:
    """The default image in the shared cache."""
    import os
    import subprocess

    subprocess.run(
        [MAGS, "image", "build", "alpine", "--if-missing"],
        env={**os.environ, "MAGS_HOST_CACHE_DIR": str(CACHE)},
        check=True,
        timeout=600,
        capture_output=True,
    )


@pytest.fixture(scope="session")
def mags(base_image: None) -> Iterator[Installation]:
    environment = {"MAGS_HOST_POOL_TARGET": "2", "MAGS_HOST_ALLOWED_NETWORKS": json.dumps([str(NETWORK)])}
    with Installation(environment=environment) as installation:
        yield installation
