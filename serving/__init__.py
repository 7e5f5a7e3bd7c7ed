"""Serving: a client, the configuration for TensorFlow Serving, and a local stand-in for it."""
