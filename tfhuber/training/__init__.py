"""The training loop: step, state, optimiser, strategy."""
