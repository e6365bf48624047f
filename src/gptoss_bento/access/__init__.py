"""Who may call, and how much: keys, rates, limits of requests, admission."""
