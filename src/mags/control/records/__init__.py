"""Queries of what belongs to somebody. Each asks for the owner; there is no way to leave it out."""
