"""`mags control`: the REST API and the lifecycles behind it. Stateless: everything lives in the database."""
