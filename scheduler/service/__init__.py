"""The service: the engine's loop and the REST API around it. `runtime` puts the parts together; `app` is HTTP."""
