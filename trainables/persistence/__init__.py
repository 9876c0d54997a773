"""State that is written so that a run survives failures."""
