"""Lives of instances on the wire: the first word, signs of life, and the last one."""

from struct import Struct
from typing import Final

from penstock.runtime.frames import Hello, Ping, Pong, Stop
from penstock.runtime.packing import HEAD, NO_FIELDS, Kind, Kinds

_HELLO = 1
(_STOP, _PING, _PONG) = range(10, 13)

_HELLO_FIELDS = Struct("<Id")
_PONG_FIELDS = Struct("<d")


def encode_hello(pid: int, at: float) -> bytes:
    """Return a `Hello` frame."""
    return HEAD.pack(_HELLO_FIELDS.size, _HELLO) + _HELLO_FIELDS.pack(pid, at)


def encode_stop() -> bytes:
    """Return a `Stop` frame."""
    return HEAD.pack(0, _STOP)


def encode_ping() -> bytes:
    """Return a `Ping` frame."""
    return HEAD.pack(0, _PING)


def encode_pong(at: float) -> bytes:
    """Return a `Pong` frame."""
    return HEAD.pack(_PONG_FIELDS.size, _PONG) + _PONG_FIELDS.pack(at)


KINDS: Final[Kinds] = {
    _HELLO: Kind(Hello, _HELLO_FIELDS, encode_hello),
    _STOP: Kind(Stop, NO_FIELDS, encode_stop),
    _PING: Kind(Ping, NO_FIELDS, encode_ping),
    _PONG: Kind(Pong, _PONG_FIELDS, encode_pong),
}
