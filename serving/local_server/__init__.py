"""A local stand-in for TensorFlow Serving: `python -m serving.local_server`."""
