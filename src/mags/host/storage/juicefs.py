"""Command lines of the `juicefs` program. Keys and passwords travel by environment, never as arguments.

Keys are each host's own and not kept in the metadata: those of the settings are in force from the next start on.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from mags.host.storage.config import StorageSettings
from mags.host.storage.errors import StorageError, StorageRefused, StorageUnavailable
from mags.kit import programs
from mags.kit.process import CommandError, inherited, run

COMMAND_TIMEOUT = 60.0
COLLECT_TIMEOUT = 3600.0


@dataclass(frozen=True, slots=True)
class Volume:
    """Where a volume's metadata, blocks and cache are. `directory` holds what the settings leave open."""

    settings: StorageSettings
    directory: Path

    @property
    def meta(self) -> str:
        """The metadata engine's URL without a password."""
        return self._meta_and_password()[0]

    @property
    def blocks(self) -> Path:
        return self.settings.blocks_dir or self.directory / "blocks"

    @property
    def storage(self) -> str:
        """JuiceFS's word for the kind of store."""
        return "s3" if self.settings.kind == "s3" else "file"

    @property
    def bucket(self) -> str:
        """The store as JuiceFS writes it down."""
        if self.settings.kind == "s3":
            return f"{self.settings.endpoint.rstrip('/')}/{self.settings.bucket}"
        return f"{os.path.abspath(self.blocks)}/"  # noqa: PTH100 -- as JuiceFS does: links stay

    @property
    def self_contained(self) -> bool:
        """Whether metadata and blocks lie in `directory`, and move with it."""
        settings = self.settings
        return settings.kind == "local" and settings.meta_url is None and settings.blocks_dir is None

    @property
    def cache(self) -> Path:
        return self.settings.cache_dir or self.directory / "cache"

    def environment(self) -> dict[str, str]:
        """The whole environment of a juicefs command."""
        kept = inherited("PATH", "HOME", "LANG", "TMPDIR") | self.secrets()
        if self.settings.kind == "s3":
            kept["AWS_REGION"] = self.settings.region
        return kept

    def secrets(self) -> dict[str, str]:
        """What of the environment is a key or a password."""
        found = {}
        if password := self._meta_and_password()[1]:
            found["META_PASSWORD"] = password
        if self.settings.kind == "s3":
            found["AWS_ACCESS_KEY_ID"] = self.settings.access_key
            found["AWS_SECRET_ACCESS_KEY"] = self.settings.secret_key.get_secret_value()
        return found

    def _meta_and_password(self) -> tuple[str, str]:
        if self.settings.meta_url is None:
            # WAL: a second mount on this host (and `juicefs gc`) may write at the same time.
            return f"sqlite3://{self.directory}/meta.db?_journal=WAL&_timeout=5000", ""
        url = self.settings.meta_url.get_secret_value()
        parts = urlsplit(url)
        if parts.password is None:
            return url, ""
        user, _, place = parts.netloc.rpartition("@")
        return url.replace(parts.netloc, f"{user.partition(':')[0]}@{place}", 1), unquote(parts.password)


class Format(msgspec.Struct, rename="pascal"):
    """What the metadata says of its volume, as far as it matters to us."""

    name: str
    uuid: str = msgspec.field(name="UUID")
    storage: str
    bucket: str
    access_key: str = ""
    """Of a volume made by hand, or by an earlier version of ours: then it stands above the environment's."""


async def look(volume: Volume) -> Format | None:
    """Ask the metadata which volume it is of; None: it knows none yet."""
    try:
        return msgspec.json.decode(await command(volume, ["config", volume.meta], timeout=COMMAND_TIMEOUT), type=Format)
    except NotFormatted:
        return None


async def format_volume(volume: Volume) -> None:
    """Make the volume where the metadata knows none. One that there is stays as it is."""
    argv = ["format", volume.meta, volume.settings.volume, "--no-update", "--trash-days", "0"]
    argv += ["--storage", volume.storage, "--bucket", volume.bucket]
    # Runs of zeros, of which disk images are full, are stored as they are unless compressed.
    argv += ["--compress", "lz4"]
    await command(volume, argv, timeout=COMMAND_TIMEOUT)


def require_same(volume: Volume, found: Format) -> None:
    """StorageRefused if the metadata is of another volume than that of the settings.

    JuiceFS itself would point the metadata at other blocks without a word, and every file would be lost to all hosts.
    """
    wanted = (volume.settings.volume, volume.storage, volume.bucket)
    if volume.self_contained and found.storage == "file":
        wanted = (volume.settings.volume, volume.storage, found.bucket)  # wherever the directory was
    if (found.name, found.storage, found.bucket) != wanted:
        raise StorageRefused(
            f"The metadata at {volume.meta.partition('?')[0]} is of volume {found.name!r} with its blocks in "
            f"{found.bucket}, and not of volume {wanted[0]!r} in {wanted[2]} as the settings say. Nothing was changed. "
            "Put MAGS_HOST_STORAGE_KIND, _VOLUME, _ENDPOINT, _BUCKET and _BLOCKS_DIR back, or set "
            "MAGS_HOST_STORAGE_META_URL to the metadata of that volume."
        )


async def settle(volume: Volume, found: Format) -> None:
    """Follow a data directory that was moved; take keys out of the metadata. Only for the volume of the settings, and
    its own blocks."""
    argv = ["--bucket", volume.bucket] if found.bucket != volume.bucket else []
    argv += ["--access-key", "", "--secret-key", ""] if found.access_key else []
    if argv:
        await command(volume, ["config", volume.meta, *argv], timeout=COMMAND_TIMEOUT)


def mount_command(volume: Volume, mount_point: Path) -> list[str]:
    """The command that mounts the volume and stays in the foreground.

    There is no `--writeback`: what fsync(2) has confirmed is in the object store.
    """
    settings = volume.settings
    argv = [str(programs.find("juicefs")), "mount", volume.meta, str(mount_point)]
    argv += ["--no-usage-report", "--no-syslog", "--metrics", "127.0.0.1:0", "-o", "allow_other", "--enable-xattr"]
    argv += ["--cache-dir", str(volume.cache), "--cache-size", str(settings.cache_mb)]
    argv += ["--buffer-size", str(settings.buffer_mb), "--io-retries", str(settings.io_retries)]
    argv += ["--put-timeout", f"{settings.put_timeout_s:g}s", "--get-timeout", f"{settings.get_timeout_s:g}s"]
    argv += ["--upload-limit", str(settings.upload_limit_mbps)] if settings.upload_limit_mbps else []
    argv += ["--download-limit", str(settings.download_limit_mbps)] if settings.download_limit_mbps else []
    return argv


async def collect(volume: Volume) -> None:
    """Rewrite what is fragmented and delete the blocks that nothing refers to."""
    await command(volume, ["gc", volume.meta, "--compact", "--delete"], timeout=COLLECT_TIMEOUT)


async def clone(volume: Volume, source: Path, target: Path) -> None:
    """Copy a tree on the mount by metadata only, with modes and owners."""
    await command(volume, ["clone", "--preserve", str(source), str(target)], timeout=COLLECT_TIMEOUT)


class NotFormatted(StorageUnavailable):
    """The metadata knows no volume."""


async def command(volume: Volume, argv: list[str], *, timeout: float) -> str:
    """Run one juicefs command and return what it printed; its failure as a sentence."""
    try:
        done = await run([programs.find("juicefs"), *argv], timeout=timeout, env=volume.environment())
    except CommandError as error:
        raise _explained(volume, argv[0], str(error)) from error
    return done.text


def _explained(volume: Volume, verb: str, words: str) -> StorageError:
    where = volume.meta.partition("?")[0]
    verb = {"config": "look up"}.get(verb, verb)
    if any(sign in words for sign in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden")):
        return StorageRefused(f"JuiceFS cannot {verb}: the object store refuses the key. {words}")
    if "database is not formatted" in words:
        return NotFormatted(f"The metadata engine at {where} knows no volume.")
    if "is not empty" in words:
        return StorageUnavailable(
            f"The metadata engine at {where} knows no volume, but the store holds the blocks of one: the metadata is "
            "lost, or MAGS_HOST_STORAGE_META_URL or MAGS_HOST_STORAGE_VOLUME is wrong. Put the metadata back; nothing "
            "was changed."
        )
    return StorageUnavailable(f"JuiceFS cannot {verb} the volume (metadata at {where}): {words}")
