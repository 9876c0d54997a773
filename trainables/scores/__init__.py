"""Training-free scores: one file per score."""
