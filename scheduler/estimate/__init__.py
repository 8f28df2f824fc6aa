"""Estimates: what a workload would take on every configuration, before it runs.

`work` says what there is to do, `model_profile` what a model costs, `cost_model` turns both into seconds, bytes and
dollars, `candidates` lists the configurations, `calibration` corrects the seconds by what was measured.
One function, `candidates.estimate_table`, serves the policy, the table people see and the final report.
"""
