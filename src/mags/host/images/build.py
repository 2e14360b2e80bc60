"""The ways to make an image: Alpine (from the wheel), Debian (mmdebstrap), or somebody's archive."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from mags.host.images import alpine, filesystem, firmware, layout
from mags.host.images.errors import ImageError, ImageInvalid
from mags.host.images.store import Image, ImageStore, Progress, check_name
from mags.kit.clock import iso, now
from mags.kit.process import CommandError, CommandFailed, run

COMMON_PACKAGES = ("python3", "nodejs", "npm", "git", "curl", "wget", "ca-certificates")
ALPINE_PACKAGES = (*COMMON_PACKAGES, "py3-pip")
DEBIAN_PACKAGES = (*COMMON_PACKAGES, "python3-pip", "iproute2", "procps")
DEBIAN_SUITE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""Named, as on Ubuntu apt does not trust Debian's keys by itself."""
INSTEAD = "For python3, node and git: `mags image build debian`, then `mags run --image debian`"
PIP_SETTINGS = "[global]\nbreak-system-packages = true\nroot-user-action = ignore\n"
"""A VM is nobody's desktop: `pip install` puts packages where its python3 finds them (else it refuses, PEP 668)."""


def silent(_: str) -> None:
    """A progress that nobody watches."""


async def build_alpine(
    store: ImageStore,
    name: str = "alpine",
    *,
    packages: Sequence[str] = ALPINE_PACKAGES,
    repositories: Sequence[str] = (),
    keys: Path | None = None,
    progress: Progress = silent,
) -> Image:
    """Alpine with the common tools, as far as a package mirror answers; the image says which are missing.

    repositories: replace those of the image. keys: a directory of further public keys for them.
    """
    async with store.locked(f"image-{check_name(name)}"), store.workspace() as scratch:
        progress("Fetching Alpine")
        tree = await firmware.root_tree(store.cache, scratch)
        progress(f"Adding {', '.join(packages)}")
        added, missing, answered = await alpine.add_packages(tree, packages, repositories, keys)
        if missing:
            why = "The package mirror does not have all" if answered else "No package mirror answered"
            progress(f"{why}: the image lacks {', '.join(missing)}. {INSTEAD}")
        _let_pip_install(tree)
        return await _finish(store, name, tree, "alpine", progress, added, missing)


async def build_debian(
    store: ImageStore,
    name: str = "debian",
    *,
    packages: Sequence[str] = DEBIAN_PACKAGES,
    suite: str = DEBIAN_SUITE,
    mirrors: Sequence[str] = (),
    progress: Progress = silent,
) -> Image:
    """Debian with the common tools, by mmdebstrap. mirrors: URLs or lines of sources.list, else the distribution's."""
    if not KEYRING.exists():
        raise ImageError("Debian's keys are missing here: `apt-get install debian-archive-keyring`.")
    async with store.locked(f"image-{check_name(name)}"), store.workspace() as scratch:
        progress(f"Fetching Debian {suite} (a few minutes)")
        archive = scratch / "debian.tar"
        command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}", f"--keyring={KEYRING}"]
        command += ["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]
        command += [suite, str(archive), *mirrors]
        try:
            await run(command, timeout=1800)
        except CommandFailed as error:  # the first complaint is the cause; --quiet would leave it out
            said = [line.removeprefix("E: ") for line in error.stderr.splitlines() if line.startswith("E: ")]
            raise ImageError(f"Debian could not be built: {said[0] if said else error}") from error
        except CommandError as error:
            raise ImageError(f"Debian could not be built: {error}") from error
        tree = scratch / "tree"
        progress("Unpacking")
        await layout.unpack(archive, tree)
        archive.unlink()
        _let_pip_install(tree)
        return await _finish(store, name, tree, f"debian {suite}", progress, packages)


async def import_image(store: ImageStore, name: str, source: Path, *, progress: Progress = silent) -> Image:
    """An image from a tar archive of a root file system, or from a directory in the OCI image layout."""
    async with store.locked(f"image-{check_name(name)}"), store.workspace() as scratch:
        tree = scratch / "tree"
        if source.is_dir():
            layers = layout.layers(source, platform.machine())
            for number, layer in enumerate(layers, start=1):
                progress(f"Unpacking layer {number} of {len(layers)}")
                await layout.unpack(layer, tree, layer=True)
        elif source.is_file():
            progress("Unpacking")
            await layout.unpack(source, tree)
        else:
            raise ImageInvalid(f"{source} is neither an archive nor a directory.")
        return await _finish(store, name, tree, f"imported from {source.name}", progress)


def _let_pip_install(tree: Path) -> None:
    (tree / "etc/pip.conf").write_text(PIP_SETTINGS)


async def _finish(
    store: ImageStore,
    name: str,
    tree: Path,
    source: str,
    progress: Progress,
    packages: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> Image:
    """From files to an image in its place."""
    if not layout.has_shell(tree):
        raise ImageInvalid(f"The image {name!r} would have no /bin/sh; Mags needs one to run scripts.")
    progress("Making the file system")
    layout.make_mount_points(tree)
    await filesystem.make_image(tree, store_file := tree.parent / "rootfs.raw")
    image = Image(name, "", 0, source, iso(now()), "", tuple(packages), tuple(missing))
    return await store.publish(store_file, image)
