"""Execution of searches and final trainings on Ray."""
