"""/v1/responses and /v1/conversations: stored, continued, cancelled and deleted; whole objects and events."""
