"""Settings, profile and hardware become a plan with origins. Pure."""
