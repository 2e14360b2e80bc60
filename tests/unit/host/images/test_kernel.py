from __future__ import annotations

import gzip

import pytest

from mags.host.images.errors import ImageInvalid
from mags.host.images.kernel import ELF_MAGIC, GZIP_MAGIC, extract_vmlinux, load_order, module_name

MODULES_DEP = """\
kernel/fs/ext4/ext4.ko.gz: kernel/lib/crc/crc16.ko.gz kernel/fs/mbcache.ko.gz kernel/fs/jbd2/jbd2.ko.gz
kernel/lib/crc/crc16.ko.gz:
kernel/fs/mbcache.ko.gz:
kernel/fs/jbd2/jbd2.ko.gz:
kernel/drivers/net/virtio_net.ko.gz: kernel/drivers/net/net_failover.ko.gz kernel/net/core/failover.ko.gz
kernel/drivers/net/net_failover.ko.gz: kernel/net/core/failover.ko.gz
kernel/net/core/failover.ko.gz:
kernel/fs/nfs/nfs.ko.gz: kernel/fs/lockd/lockd.ko.gz kernel/net/sunrpc/sunrpc.ko.gz
kernel/fs/lockd/lockd.ko.gz: kernel/net/sunrpc/sunrpc.ko.gz
kernel/net/sunrpc/sunrpc.ko.gz:
kernel/drivers/x/dash-ed.ko.gz:
"""


def names(order: list[str]) -> list[str]:
    return [module_name(path) for path in order]


def test_what_a_module_needs_comes_before_it() -> None:
    assert names(load_order(MODULES_DEP, ["virtio_net"])) == ["failover", "net_failover", "virtio_net"]
    assert names(load_order(MODULES_DEP, ["nfs"])) == ["sunrpc", "lockd", "nfs"]
    assert set(names(load_order(MODULES_DEP, ["ext4"]))) == {"crc16", "mbcache", "jbd2", "ext4"}


def test_nothing_is_loaded_twice() -> None:
    both = load_order(MODULES_DEP, ["net_failover", "virtio_net"])
    assert names(both) == ["failover", "net_failover", "virtio_net"]
    assert names(load_order(MODULES_DEP, ["virtio_net"], loaded=both[:2])) == ["virtio_net"]


def test_a_module_that_is_built_in_needs_no_loading() -> None:
    assert load_order(MODULES_DEP, ["virtio_console", "dash_ed"]) == ["kernel/drivers/x/dash-ed.ko.gz"]


def test_the_kernel_is_found_behind_its_loader() -> None:
    image = ELF_MAGIC + bytes(100_000)
    loader = b"MZ" + bytes(500) + GZIP_MAGIC + b"not gzip after all"
    other = gzip.compress(b"compressed, but no kernel")
    assert extract_vmlinux(loader + other + gzip.compress(image) + b"trailer") == image


@pytest.mark.parametrize(
    "blob", [b"", b"MZ" * 100, GZIP_MAGIC, gzip.compress(b"no ELF", mtime=0), gzip.compress(ELF_MAGIC, mtime=0)[:-9]]
)
def test_a_file_without_a_kernel_is_refused(blob: bytes) -> None:
    with pytest.raises(ImageInvalid):
        extract_vmlinux(blob)
