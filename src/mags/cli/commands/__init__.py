"""One file per command of `mags`."""
