"""Who may come in, and how often: credentials, tickets, rate limits, and bounds on connections."""
