"""An evaluation as one HTML page that needs no other file, no server and no network."""
