"""`gptoss-bento bench`: this service and bare vLLM on the same arguments, measured in turn in one run."""
