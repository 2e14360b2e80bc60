"""`mags edge`: public URLs and the SSH gateway."""
