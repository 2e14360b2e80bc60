"""Build, import, list and remove the root file systems that VMs run on, on this machine.

mags image build alpine
mags image import mine rootfs.tar
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mags.cli.command import Refused, Session, add_json
from mags.cli.times import since, size

if TYPE_CHECKING:
    from mags.host.images import Image, ImageStore

LOCAL = True


def describe(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    build = verbs.add_parser("build", help="build one")
    build.add_argument("kind", choices=["alpine", "debian"])
    build.add_argument("--name", help="what to call it (default: its kind)")
    build.add_argument("--if-missing", action="store_true", help="only if there is none of that name")
    bring = verbs.add_parser("import", help="make one from a root file system")
    bring.add_argument("name")
    bring.add_argument("path", type=Path, help="a tar archive, or a directory in the OCI image layout")
    listing = verbs.add_parser("list", help="list them")
    remove = verbs.add_parser("remove", help="remove one")
    remove.add_argument("name")
    warm = verbs.add_parser("warm", help="build the template of a VM's kind now, on the running server")
    warm.add_argument("name")
    warm.add_argument("--cpus", type=int, default=1, metavar="N")
    warm.add_argument("--memory", type=int, default=512, metavar="MB")
    add_json(listing)
    for verb in (build, bring, listing, remove, warm):
        verb.add_argument("--data-dir", metavar="DIR", help="where everything is kept (default /var/lib/mags)")


def run(arguments: argparse.Namespace, session: Session) -> int:
    import asyncio

    from mags.host.images import ImageError
    from mags.kit.process import CommandError

    try:
        return asyncio.run(_run(arguments, session))
    except (ImageError, CommandError, TimeoutError) as error:
        raise Refused(str(error) or "It took too long.") from error
    except PermissionError as error:
        raise Refused(f"{error.filename or 'The data directory'} is root's. Run `sudo mags image ...`.") from error


async def _run(arguments: argparse.Namespace, session: Session) -> int:
    from mags.cli.commands.up import read_settings
    from mags.cli.local_images import build, open_store, warm
    from mags.host.images.build import import_image

    data_dir = read_settings(arguments).data_dir
    store, console = open_store(data_dir), session.console
    match arguments.verb:
        case "build":
            name = arguments.name or arguments.kind
            if arguments.if_missing and any(image.name == name for image in store.list()):
                console.note(f"There is an image {name} already.")
                return 0
            _tell(session, await build(store, arguments.kind, name, note=console.note))
        case "import":
            _tell(session, await import_image(store, arguments.name, arguments.path, progress=console.note))
        case "remove":
            await store.remove(arguments.name)
            console.note(f"{arguments.name} is removed.")
        case "warm":
            await warm(data_dir, arguments.name, vcpus=arguments.cpus, memory_mb=arguments.memory)
            console.note(f"VMs of {arguments.name} start at once now.")
        case "list":
            _list(arguments, session, store)
    return 0


def _tell(session: Session, image: Image) -> None:
    session.console.note(f"{image.name} is there ({size(image.size)}). Next: mags run --image {image.name} 'echo hi'")


def _list(arguments: argparse.Namespace, session: Session, store: ImageStore) -> None:
    images = store.list()
    if arguments.json:
        fields = ("name", "key", "size", "source", "built_at", "packages", "missing")
        session.console.json({"images": [{name: getattr(image, name) for name in fields} for image in images]})
        return
    rows = [
        (image.name, size(image.size), image.source, since(image.built_at), ", ".join(image.missing) or "-")
        for image in images
    ]
    heads = ("IMAGE", "SIZE", "SOURCE", "BUILT", "WITHOUT")
    session.console.table(heads, rows, nothing="No images. Build one: mags image build alpine")
