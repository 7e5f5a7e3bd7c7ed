"""A run's directory: checkpoints, provenance, loading, comparison."""
