"""The Ray cluster: connections, slots, jobs."""
