"""What a Bento and its image are made of."""
