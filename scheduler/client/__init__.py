"""The Python client: the same verbs as the command line, over the service's API.

    import raywise
    client = raywise.Client()
    pipeline = client.submit("triage.yaml")
    client.wait(pipeline["id"])

Uses nothing of the other packages, so that it also works beside a user's own `scheduler.py`.
"""

from ._client import Client, ClientError, NoService, Refused, verification

__all__ = ["Client", "ClientError", "NoService", "Refused", "verification"]
