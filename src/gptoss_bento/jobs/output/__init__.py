"""From the engine's answer to the output of a job."""
