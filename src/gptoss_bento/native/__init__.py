"""RunPod's job API, as worker-vllm speaks it: jobs that are accepted at once, survive a crash and are fetched later."""
