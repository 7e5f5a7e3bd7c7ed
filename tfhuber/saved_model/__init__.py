"""Exported models: making, checking and running them."""
