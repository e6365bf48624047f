"""What the operator said: variables, profiles, options of vLLM, keys."""
