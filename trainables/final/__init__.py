"""Final trainings."""
