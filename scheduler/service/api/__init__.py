"""The routes of the REST API, one module for each thing that is asked about. `problems` is how every error is said,
`finding` and `showing` how workloads are found and told of, `openapi` how all of it is documented."""
