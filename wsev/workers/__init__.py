"""Processes: what a worker takes from the system, and its life."""
