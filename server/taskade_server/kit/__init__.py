"""Pure functions that every layer may use; nothing here knows a database, a socket or a business noun."""
