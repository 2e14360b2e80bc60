"""Mags runs scripts in instant microVMs.

The names re-exported here are the public SDK; everything else of the package is the server's.
"""
