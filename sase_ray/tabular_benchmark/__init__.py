"""Ground-truth tables: recorded scores that take the place of training."""
