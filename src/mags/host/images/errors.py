"""What can go wrong with images.

ImageError
├── ImageMissing   no image of that name: build or import it
└── ImageInvalid   what was given cannot be made an image: a bad name, a hostile archive, a wrong hash
"""

from __future__ import annotations


class ImageError(Exception):
    """The text is one sentence for the user."""


class ImageMissing(ImageError):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is no image {name!r}; build it with `mags image build {name}` or import one.")
        self.name = name


class ImageInvalid(ImageError):
    pass
