"""What a user asks for, and the bodies that run it on the cluster.

First in the flow: YAML -> `WorkloadSpec` (`loading`, `spec`) -> a `Job` (`job`) that a body (`bodies`) carries out.
This package imports none of the others, and inside it all imports are relative: it is shipped to the cluster under the
name `raywise_workloads`, so that a user's own `workloads.py`, `scheduler.py` or `cluster/` never meets ours.
"""
