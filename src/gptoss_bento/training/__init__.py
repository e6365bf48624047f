"""How the demo model is trained; in no Bento."""
