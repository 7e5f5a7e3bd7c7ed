"""What a model's uncertainty is worth, learned from photographs that it never saw: scale, law, regions."""
