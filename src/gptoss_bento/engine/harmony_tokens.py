"""The control tokens of Harmony by their ids in the o200k_harmony vocabulary."""

ENDOFTEXT, RETURN, CONSTRAIN, CHANNEL, START, END = 199999, 200002, 200003, 200005, 200006, 200007
MESSAGE, CALL = 200008, 200012

FIRST_SPECIAL = 199998
"""Tokens from this one on are no text: `<|startoftext|>`, what is named here, and reserved ones up to the last."""

ENDS = frozenset({ENDOFTEXT, RETURN, END, CALL})
"""What ends a message. All but END end the answer too: they are `eos_token_id` of GPT-OSS's generation_config.json."""

CONTROL = ENDS | {CHANNEL, START, MESSAGE}
"""What is markup, and never text of a message."""

FINAL = 17196
"""The token `final`, which names the channel of the answer."""
