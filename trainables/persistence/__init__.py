"""What is written so that a run survives."""
