"""What can go wrong with workspaces' files.

StorageError            the sentence says what to do
├── StorageRefused      the settings are wrong (a key, a bucket, a URL): trying again does not help
├── StorageUnavailable  a service is away or does not answer in time: trying again may help
├── GenerationMissing   the image that was asked for is not on the volume
└── StaleEpoch          somebody else owns the workspace now: this copy must stop
    └── Deleted         nobody does any more
"""

from __future__ import annotations


class StorageError(Exception):
    """Base of all; its text is one sentence for the operator."""


class StorageRefused(StorageError):
    pass


class StorageUnavailable(StorageError):
    pass


class GenerationMissing(StorageError):
    pass


class StaleEpoch(StorageError):
    pass


class Deleted(StaleEpoch):
    pass
