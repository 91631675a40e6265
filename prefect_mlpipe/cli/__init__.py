"""`mlpipe`: the command line, for what Prefect's own has no verb for."""
