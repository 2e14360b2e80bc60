"""The `mags` command: one file per command, everything heavy imported late."""
