"""`mags host`: the program that owns the microVMs of one machine."""
