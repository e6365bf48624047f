"""The control tokens of Harmony by their ids in the o200k_harmony vocabulary."""

RETURN, CHANNEL, START, END, MESSAGE, CALL = 200002, 200005, 200006, 200007, 200008, 200012

ENDS = frozenset({RETURN, END, CALL})
"""What ends a message."""

CONTROL = ENDS | {CHANNEL, START, MESSAGE}
"""What is markup, and never text of a message."""

FINAL = 17196
"""The token `final`, which names the channel of the answer."""
