"""The job API: from a job's input over the engine to its output."""
