"""The record schema, and reading, augmenting and batching of converted data sets."""
