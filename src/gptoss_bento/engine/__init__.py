"""vLLM: its start, its patches, its failures, its kernels. The only package that imports vLLM."""
