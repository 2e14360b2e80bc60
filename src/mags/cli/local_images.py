"""The images of the server on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mags.host.config import Settings as HostSettings
from mags.host.images import Image, ImageStore, agent_path
from mags.host.images.build import build_alpine, build_debian


def open_store(data_dir: Path) -> ImageStore:
    """The cache that the host program of that data directory uses (MAGS_HOST_CACHE_DIR, else in the directory)."""
    return ImageStore(HostSettings(data_dir=data_dir).cache, agent_path())


async def build(store: ImageStore, kind: str, name: str, *, note: Callable[[str], None]) -> Image:
    """`kind` is alpine or debian."""
    if kind == "debian":
        return await build_debian(store, name, progress=note)
    return await build_alpine(store, name, progress=note)


async def ensure_pool_image(data_dir: Path, *, note: Callable[[str], None]) -> None:
    """The image that the pool's VMs run on; built if it is one that we know how to build."""
    settings = HostSettings(data_dir=data_dir)
    store, name = open_store(data_dir), settings.pool_image
    if name in ("alpine", "debian") and all(image.name != name for image in store.list()):
        note(f"building the image {name} (once)")
        await build(store, name, name, note=note)


async def warm(data_dir: Path, name: str, *, vcpus: int, memory_mb: int) -> None:
    """Have the running host build the template. Problem or NotUp when it can't."""
    from mags.cli.command import Refused
    from mags.protocol import messages as m
    from mags.protocol.errors import Problem
    from mags.supervisor.rpc import NotUp, ask_local_host

    wish = m.Warm(spec=m.VmSpec(image=name, vcpus=vcpus, memory_mb=memory_mb))
    try:
        await ask_local_host(data_dir, "warm", wish, m.Done, timeout=600)
    except (Problem, NotUp) as error:
        raise Refused(str(error)) from error
