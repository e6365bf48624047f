"""`gptoss-bento doctor`: what would keep the service from starting or serving well, found before anything heavy."""
