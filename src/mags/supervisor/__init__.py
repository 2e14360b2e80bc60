"""`mags up`: every program of a server on one machine, under one supervisor."""
