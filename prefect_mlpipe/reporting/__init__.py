"""What people see of a run: in Prefect's screens and on the terminal.

Knows Prefect's client. Knows nothing of graphs, stores, or how it was decided that a step runs: it
is given plain reports and shows them.
"""
