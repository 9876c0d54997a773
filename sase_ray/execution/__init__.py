"""Runs searches and final trainings on Ray."""
