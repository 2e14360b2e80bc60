"""Command lines of the `juicefs` program. Keys and passwords travel by environment, never as arguments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

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
    def cache(self) -> Path:
        return self.settings.cache_dir or self.directory / "cache"

    def environment(self) -> dict[str, str]:
        """The whole environment of a juicefs command."""
        kept = inherited("PATH", "HOME", "LANG", "TMPDIR")
        if password := self._meta_and_password()[1]:
            kept["META_PASSWORD"] = password
        if self.settings.kind == "s3":
            kept["ACCESS_KEY"] = self.settings.access_key
            kept["SECRET_KEY"] = self.settings.secret_key.get_secret_value()
            kept["AWS_REGION"] = self.settings.region
        return kept

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


async def format_volume(volume: Volume) -> None:
    """Make the volume, or check that it is the one of our settings and give it our key. Repeatable."""
    settings = volume.settings
    argv = ["format", volume.meta, settings.volume, "--trash-days", "0"]
    if settings.kind == "s3":
        argv += ["--storage", "s3", "--bucket", f"{settings.endpoint.rstrip('/')}/{settings.bucket}"]
    else:
        volume.blocks.mkdir(parents=True, exist_ok=True, mode=0o700)
        argv += ["--storage", "file", "--bucket", f"{volume.blocks}/"]
    # Runs of zeros, of which disk images are full, are stored as they are unless compressed.
    argv += ["--compress", "lz4"]
    await command(volume, argv, timeout=COMMAND_TIMEOUT)


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


async def command(volume: Volume, argv: list[str], *, timeout: float) -> str:
    """Run one juicefs command and return what it printed; its failure as a sentence."""
    try:
        done = await run([programs.find("juicefs"), *argv], timeout=timeout, env=volume.environment())
    except CommandError as error:
        raise _explained(volume, argv[0], str(error)) from error
    return done.text


def _explained(volume: Volume, verb: str, words: str) -> StorageError:
    where = volume.meta.partition("?")[0]
    if any(sign in words for sign in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden")):
        return StorageRefused(f"JuiceFS cannot {verb}: the object store refuses the key. {words}")
    if "cannot update volume" in words or "UUID" in words:
        return StorageRefused(f"The metadata at {where} is of another volume: set MAGS_HOST_STORAGE_META_URL. {words}")
    if "is not empty" in words:
        return StorageUnavailable(
            f"The metadata engine at {where} knows no volume, but the store holds the blocks of one: the metadata is "
            "lost, or MAGS_HOST_STORAGE_META_URL or MAGS_HOST_STORAGE_VOLUME is wrong. Put the metadata back; nothing "
            "was changed."
        )
    return StorageUnavailable(f"JuiceFS cannot {verb} the volume (metadata at {where}): {words}")
