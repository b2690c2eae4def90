"""What compute tells a zygote when it starts it."""

from typing import Any, NamedTuple


class Settings(NamedTuple):
    """Say what to import, and where things are.

    `control` is the descriptor of the socket to compute, `parent` compute's process id, `instances` the folder for the
    instances' own folders. `memory` (bytes) is the limit of an instance, `enforcement` how it is kept ("cgroup v2",
    "cgroup v1" or "polling"), `groups` what the paths of instances' control groups begin with. `room` is how many bytes an
    instance's own folder may take, `processes` how many it may have below it. `sandbox` is the fields of `sandbox.Sandbox`,
    None for no walls. `web` ("asgi", "wsgi") says what kind of web app the handler is, "" that it is to be found out. `note`
    is set by the zygote itself when it starts anew to import after each fork.
    """

    control: int
    parent: int
    bundle: str
    instances: str
    handler: str
    function: str
    version: int
    slots: int
    memory: "int | None" = None
    enforcement: str = "polling"
    groups: str = ""
    room: int = 2 * 10**9
    processes: int = 1000
    sandbox: "dict[str, Any] | None" = None
    web: str = ""
    note: str = ""
