"""How good positions are, and how honest and sharp their uncertainty is."""
