"""Root file systems, the one kernel and initramfs for all of them, and empty disks; kept in a cache directory."""

from mags.host.images.errors import ImageError, ImageInvalid, ImageMissing
from mags.host.images.firmware import agent_path
from mags.host.images.store import BootFiles, Image, ImageStore, Progress

__all__ = ["BootFiles", "Image", "ImageError", "ImageInvalid", "ImageMissing", "ImageStore", "Progress", "agent_path"]
