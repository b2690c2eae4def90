"""The function that Penstock runs: one call to the service, with the key of the customer whose pipeline it came through."""

import json
from typing import Any
from urllib.request import Request, urlopen


def call_api(event: dict[str, Any], context: Any) -> Any:
    """Have the service describe a character, and return what it says.

    Over the quota it answers 429 with Retry-After: urllib raises that as an HTTPError, and Penstock understands it. The
    pipeline is held until then, and the task tried again at no cost.
    """
    request = Request(
        f"{context.params['url']}/describe",
        data=json.dumps(event).encode(),
        headers={"X-API-Key": context.params["api_key"], "Content-Type": "application/json"},
    )
    with urlopen(request) as response:
        return json.load(response)
