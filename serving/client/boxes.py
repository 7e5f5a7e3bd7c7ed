"""The boxes that a user gives: one for all pictures, or a file with one for each."""

from tfhuber.geometry.boxes import Boxes, read_boxes

__all__ = ["Boxes", "read_boxes"]
