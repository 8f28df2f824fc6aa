"""The brain: estimate, policy, plan, reconcile, learn; and the service and command line that expose it.

Third in the flow. What decides (`estimate`, `policy`, `engine.reconcile`, `states`) is pure: no Ray, no clock, no
randomness without a seed, no I/O.
"""
