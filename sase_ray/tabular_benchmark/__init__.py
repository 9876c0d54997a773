"""Ground-truth tables, in place of training."""
