"""Troubles of the storage as problems that callers get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mags.host.storage.archives import BadArchive
from mags.host.storage.errors import Deleted, GenerationMissing, StaleEpoch, StorageError, StorageUnavailable
from mags.host.vmm.driver import VmmError
from mags.protocol.errors import Problem


@contextmanager
def as_problems() -> Iterator[None]:
    """Inside, storage's errors become problems. StaleEpoch is a `conflict`; what may pass is `unavailable`."""
    try:
        yield
    except Deleted as error:
        raise Problem("conflict", str(error), deleted=True) from error
    except StaleEpoch as error:
        raise Problem("conflict", str(error)) from error
    except GenerationMissing as error:
        raise Problem("not_found", str(error)) from error
    except StorageUnavailable as error:
        raise Problem("unavailable", str(error)) from error
    except BadArchive as error:
        raise Problem("invalid", str(error)) from error
    except StorageError as error:
        raise Problem("not_available", str(error)) from error
    except VmmError as error:
        raise Problem("unavailable", f"The workspace could not be synced: {error}") from error
    except OSError as error:
        raise Problem("unavailable", f"The host's own disk fails: {error.strerror or error}.") from error
