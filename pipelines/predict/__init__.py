"""Prediction on any number of pictures, as a Beam job."""
