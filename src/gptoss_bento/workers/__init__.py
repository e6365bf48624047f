"""Processes: the supervisor, the group of API workers, their readiness, metrics and shutdown."""
