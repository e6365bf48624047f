"""`gptoss-bento bench`: this service and bare vLLM on the same arguments in turn; `bench jobs`: what jobs cost."""
