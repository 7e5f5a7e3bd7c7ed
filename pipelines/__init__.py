"""From data sets in their official layouts to TFRecords, and drawn sample data in those layouts."""

import logging

# Beam logs, while it is imported, that packages for Google's cloud are not there.
logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
