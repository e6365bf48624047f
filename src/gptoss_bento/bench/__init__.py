"""`gptoss-bento bench`: this service and bare vLLM in turn, its jobs, its HTTP side alone, and what its parts cost."""
