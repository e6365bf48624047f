"""From what the engine answers to what a job's client reads."""
