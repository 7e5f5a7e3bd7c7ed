"""What commands share: errors in one line, progress, files, signals."""
