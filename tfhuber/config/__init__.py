"""The configuration of a run: its schema, and the reference of its keys."""
