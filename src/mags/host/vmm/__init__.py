"""Virtual machines: what one is (`spec`), what a driver offers (`driver`), and the drivers (`qemu`)."""
