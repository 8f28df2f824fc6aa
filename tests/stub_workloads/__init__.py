"""Stands in for the shipped `workloads` package: a body that does what the `command` of its spec says."""
