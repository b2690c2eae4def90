"""Limits on the wire: what an execution asks of shared limits, what it is answered, and what it tells of them."""

import math
from struct import Struct
from typing import Final

from penstock.runtime.frames import TOO_COSTLY, Answer, Give, Spent, Take, Took
from penstock.runtime.packing import HEAD, Kind, Kinds, WireError

(_TAKE, _ANSWER, _TOOK, _GIVE, _SPENT) = range(14, 19)

_TAKE_FIELDS = Struct("<QIBd")
_ANSWER_FIELDS = Struct("<QIB")
_TOOK_FIELDS = Struct("<QId")
_GIVE_FIELDS = Struct("<QI")
_SPENT_FIELDS = Struct("<Qd")


def encode_take(attempt: int, number: int, slot: bool, cost: float, limit: str) -> bytes:
    """Return a `Take` frame."""
    label = limit.encode()
    return HEAD.pack(21 + len(label), _TAKE) + _TAKE_FIELDS.pack(attempt, number, slot, cost) + label


def encode_answer(attempt: int, number: int, refusal: int, message: str) -> bytes:
    """Return an `Answer` frame."""
    text = message.encode()
    return HEAD.pack(13 + len(text), _ANSWER) + _ANSWER_FIELDS.pack(attempt, number, refusal) + text


def encode_took(attempt: int, number: int, at: float) -> bytes:
    """Return a `Took` frame."""
    return HEAD.pack(_TOOK_FIELDS.size, _TOOK) + _TOOK_FIELDS.pack(attempt, number, at)


def encode_give(attempt: int, number: int) -> bytes:
    """Return a `Give` frame."""
    return HEAD.pack(_GIVE_FIELDS.size, _GIVE) + _GIVE_FIELDS.pack(attempt, number)


def encode_spent(attempt: int, cost: float) -> bytes:
    """Return a `Spent` frame."""
    return HEAD.pack(_SPENT_FIELDS.size, _SPENT) + _SPENT_FIELDS.pack(attempt, cost)


def _take(data: bytes, at: int, stop: int) -> Take:
    attempt, number, slot, cost = _TAKE_FIELDS.unpack_from(data, at)
    if not 0 < cost < math.inf:
        raise WireError(f"a Take frame names the cost {cost}")
    return Take(attempt, number, slot != 0, cost, data[at + 21 : stop].decode())


def _answer(data: bytes, at: int, stop: int) -> Answer:
    attempt, number, refusal = _ANSWER_FIELDS.unpack_from(data, at)
    if refusal > TOO_COSTLY:
        raise WireError(f"an Answer frame names the unknown refusal {refusal}")
    return Answer(attempt, number, refusal, data[at + 13 : stop].decode())


def _spent(data: bytes, at: int, stop: int) -> Spent:
    if stop - at != _SPENT_FIELDS.size:
        raise WireError(f"a Spent frame of {_SPENT_FIELDS.size} bytes came with {stop - at}")
    attempt, cost = _SPENT_FIELDS.unpack_from(data, at)
    if not 0 <= cost < math.inf:
        raise WireError(f"a Spent frame names the cost {cost}")
    return Spent(attempt, cost)


KINDS: Final[Kinds] = {
    _TAKE: Kind(Take, _TAKE_FIELDS, encode_take, _take),
    _ANSWER: Kind(Answer, _ANSWER_FIELDS, encode_answer, _answer),
    _TOOK: Kind(Took, _TOOK_FIELDS, encode_took),
    _GIVE: Kind(Give, _GIVE_FIELDS, encode_give),
    _SPENT: Kind(Spent, _SPENT_FIELDS, encode_spent, _spent),
}
