"""The Python client: the same verbs as the command line, over the service's API.

    import raywise
    client = raywise.Client()
    pipeline = client.submit("triage.yaml")
    client.wait(pipeline["id"])

`AsyncClient` has the same methods to await. Uses nothing of the other packages, so that it also works beside a user's
own `scheduler.py`.
"""

from ._async_client import AsyncClient
from ._client import Client
from ._errors import ClientError, NoService, Refused
from ._shared import verification

__all__ = ["AsyncClient", "Client", "ClientError", "NoService", "Refused", "verification"]
