"""Data sets to TFRecords: readers, the Beam job, and a writer of sample data."""
