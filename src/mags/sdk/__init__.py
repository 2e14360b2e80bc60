"""The public client of the REST API."""
