"""The machine: GPUs, CPU, memory. The only package that probes."""
