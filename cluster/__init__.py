"""Devices, nodes and prices, and the only package that speaks to Ray as a scheduler.

Second in the flow: `catalog` and an `Observer` say what there is (`types.Snapshot`), an `Executor` starts and stops
gangs on it. The protocols are in `protocols`; `fake` and `ray_*` implement them.
"""
