"""What a person sees: tables in the terminal, Prometheus metrics. Reads, decides nothing.

Last in the flow: imports the others, is imported only where the parts are put together (command line, service app).
"""
