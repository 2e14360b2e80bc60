"""A host program of its own for the tests of sleep: what they do to it is hard on others."""

from tests.kit.host_fixtures import caller, host, image_cache, nats_program
from tests.vm.storage.conftest import place

__all__ = ["caller", "host", "image_cache", "nats_program", "place"]
