"""What each format says of itself before Pillow reads it, and what Pillow does not tell."""
