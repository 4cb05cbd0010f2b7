"""Long campaigns: they kill what they started, again and again, and check what is left."""
