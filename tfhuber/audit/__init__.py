"""Which labels are wrong, by what a model that never saw them says of them."""
