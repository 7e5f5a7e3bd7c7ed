"""The network, and what makes positions in pixels of its output."""
