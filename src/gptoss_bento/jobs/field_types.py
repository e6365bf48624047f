"""The types of the fields of a job's input: what JSON may hold there, and the words for it in errors. Pure.

They are for strict models, where a number is no text and a switch is no number.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gptoss_bento.jobs.input_problems import Must

_MOST = 2**63 - 1  # vLLM keeps integers in 64 bits


def _whole(value: Any) -> Any:
    """5.0 is 5: JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _boolean(value: Any) -> Any:
    """Python takes 1 for true and 0 for false; JSON does not."""
    return value if isinstance(value, bool) else None


_WHOLE = BeforeValidator(_whole)
BOOLEAN = BeforeValidator(_boolean)
"""Beside `Literal[True]` or `Literal[False]`."""

Switch = Annotated[bool, Must("true or false")]
Text = Annotated[str, Must("a string")]
JsonObject = dict[Any, Any]
"""Its keys are strings already, and pydantic would refuse some that JSON permits."""

Object = Annotated[JsonObject, Must("an object")]
Objects = Annotated[list[JsonObject], Must("a list of objects")]
Int64 = Annotated[int, Field(ge=-_MOST - 1, le=_MOST), _WHOLE, Must("a 64-bit integer")]
FromMinus1 = Annotated[int, Field(ge=-1, le=_MOST), _WHOLE, Must("an integer of at least -1")]
From0 = Annotated[int, Field(ge=0, le=_MOST), _WHOLE, Must("an integer of at least 0")]
From1 = Annotated[int, Field(ge=1, le=_MOST), _WHOLE, Must("an integer of at least 1")]
TopK = Annotated[int, Field(ge=-1, le=_MOST), _WHOLE, Must("an integer of at least 1, or 0 or -1 for off")]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False), Must("a number from -2 to 2")]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False), Must("a number above 0")]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False), Must("a number from 0 to 2")]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Must("a number from 0 to 1")]
ShareAbove0 = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), Must("a number above 0 and up to 1")]
Number = Annotated[float, Field(allow_inf_nan=False), Must("a number")]
TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=_MOST), _WHOLE]], Must("a list of token ids")]
_StopText = Annotated[str, Field(min_length=1)]
Stop = Annotated[_StopText | list[_StopText], Must("a string or a list of strings, none of them empty")]
Bias = Annotated[
    dict[Annotated[str, Field(pattern=r"^\d+$")], Annotated[float, Field(allow_inf_nan=False)]],
    Must("an object of numbers by token id"),
]
