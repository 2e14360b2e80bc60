"""One host program with a NATS server for all tests here."""

from tests.kit.host_fixtures import caller, host, image_cache, nats_program

__all__ = ["caller", "host", "image_cache", "nats_program"]
