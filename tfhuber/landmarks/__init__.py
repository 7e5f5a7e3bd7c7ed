"""What a set of landmarks is, and those that are known."""
