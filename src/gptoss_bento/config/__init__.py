"""What the operator sets: variables, profiles, options of vLLM, keys."""
