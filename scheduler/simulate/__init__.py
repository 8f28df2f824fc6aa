"""Runs the very engine on a virtual clock: traces in, a simulated cluster under it, figures out."""
