"""Frames: what the server and an instance tell each other. `wire` has them in bytes.

The laws: a body up to `INLINE` bytes travels inside its `Open` or `End`; a longer one is announced there by its `size` alone
and follows in `Data` frames of that attempt. Moments are monotonic seconds of the machine the instance runs on.
"""

from typing import Final, NamedTuple

STDOUT: Final = 0
STDERR: Final = 1
LOG: Final = 2
STREAMS: Final = ("stdout", "stderr", "log")

OK: Final = 0
ERROR: Final = 1
THROTTLED: Final = 2
CANCELLED: Final = 3
PARTS: Final = 4
"""The ending of a batch whose handler has said what became of each task: its body is parts, one for each."""

LAST: Final = 1
"""The flag of a piece that ends its body, or its message."""
TEXT: Final = 2
"""The flag of a piece whose message is text."""

LONGEST_NAME: Final = 100
"""Characters that the name of a limit may have."""

GRANTED: Final = 0
MISUSED: Final = 1
UNKNOWN: Final = 2
HOLDS: Final = 3
TOO_COSTLY: Final = 4

INVOKE: Final = 0
SEND: Final = 1

DONE: Final = 0
FAILED: Final = 1
REFUSED: Final = 2


class Hello(NamedTuple):
    """Instance to server: I am this process and have begun to read."""

    pid: int
    at: float


class Define(NamedTuple):
    """Server to instance: this is the pipeline that `key` stands for in every later `Open`. `params` is a JSON object."""

    key: int
    name: str
    params: bytes


class Open(NamedTuple):
    """Server to instance: execute this. `timeout` is in seconds; `dated` asks for a `Started` frame."""

    attempt: int
    task: int
    number: int
    dated: bool
    timeout: float
    pipeline: int
    size: int
    body: bytes


class Entry(NamedTuple):
    """Be one task of a batch: its id, the number of its attempt, and how many bytes of the body are its payload."""

    task: int
    number: int
    size: int


class Batch(NamedTuple):
    """Server to instance: the `Open` of this attempt that comes next has these tasks, its body their payloads in a row."""

    attempt: int
    entries: tuple[Entry, ...]


class Data(NamedTuple):
    """Both ways: the next piece of a long body."""

    attempt: int
    piece: bytes


class Credit(NamedTuple):
    """Both ways: that many more bytes of a long body, or of pieces, were taken; as many may be sent."""

    attempt: int
    granted: int


class Visit(NamedTuple):
    """Server to instance: the `Open` of this attempt that comes next is a web request, its body what is here of that one's.

    `head` is the request's (`heads.pack_request`); `more` says that pieces of the body follow.
    """

    attempt: int
    more: bool
    head: bytes


class Head(NamedTuple):
    """Instance to server: the head of the answer to a web request (`heads.pack_headers`); 101 accepts a WebSocket."""

    attempt: int
    status: int
    headers: bytes


class Piece(NamedTuple):
    """Both ways: the next piece of a body, or of a message of a WebSocket. `flags` are `LAST` and `TEXT`."""

    attempt: int
    flags: int
    data: bytes


class Close(NamedTuple):
    """Both ways: a WebSocket is closed, with this code. Server to instance, of a plain request: the client is gone."""

    attempt: int
    code: int
    reason: str


class Cancel(NamedTuple):
    """Server to instance: this execution is wanted no longer."""

    attempt: int


class Started(NamedTuple):
    """Instance to server: the handler started at that moment."""

    attempt: int
    at: float


class End(NamedTuple):
    """Instance to server: an execution ended. `retry_after` is in seconds, None if not named; `limit` is "" if not named."""

    attempt: int
    ending: int
    started: float
    finished: float
    retry_after: float | None
    limit: str
    size: int
    body: bytes


class Log(NamedTuple):
    """Instance to server: output of an execution (attempt 0: of none). `stream` is an index of `STREAMS`."""

    attempt: int
    stream: int
    text: str


class Take(NamedTuple):
    """Instance to server: this execution wants `cost` of a shared limit's rates, or one unit of its concurrency (`slot`).

    `number` names the request among those of the execution.
    """

    attempt: int
    number: int
    slot: bool
    cost: float
    limit: str


class Answer(NamedTuple):
    """Server to instance: what was asked for is granted (`refusal` is `GRANTED`), or never will be, and why."""

    attempt: int
    number: int
    refusal: int
    message: str


class Took(NamedTuple):
    """Instance to server: the handler went on at that moment, with what rates had granted it."""

    attempt: int
    number: int
    at: float


class Give(NamedTuple):
    """Instance to server: what was asked for (of limits, or to be made) is wanted no longer, or given back."""

    attempt: int
    number: int


class Spent(NamedTuple):
    """Instance to server: this execution has really cost that much, all in."""

    attempt: int
    cost: float


class Order(NamedTuple):
    """Instance to server: this execution wants work made of it: a call of `target`, or a task sent there (`verb`).

    `number` names it among the requests of the execution; it wants one `Reply`, for which the execution `waits` already or
    will later. `options` is a JSON object.
    """

    attempt: int
    number: int
    verb: int
    waits: bool
    target: str
    options: bytes
    size: int
    body: bytes


class Wait(NamedTuple):
    """Instance to server: this execution waits for the reply to an order now; it was not waited for so far."""

    attempt: int
    number: int


class Reply(NamedTuple):
    """Server to instance: what became of an order. `body` is the JSON result, or JSON that says why there is none."""

    attempt: int
    number: int
    status: int
    size: int
    body: bytes


class Stop(NamedTuple):
    """Server to instance: finish what you have, then end."""


class Ping(NamedTuple):
    """Server to instance: give a sign of life."""


class Pong(NamedTuple):
    """Instance to server: alive at that moment."""

    at: float


Request = Take | Took | Give | Spent | Order | Wait
"""What an execution asks of limits and tells of them, and what it wants made."""

Word = Head | Piece | Close | Credit
"""What the two sides of a web request tell each other between its beginning and its end."""

Frame = (
    Hello
    | Define
    | Open
    | Batch
    | Visit
    | Data
    | Credit
    | Cancel
    | Started
    | End
    | Log
    | Stop
    | Ping
    | Pong
    | Request
    | Answer
    | Reply
    | Head
    | Piece
    | Close
)
