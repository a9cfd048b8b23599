"""The one way out: requests to addresses that users give."""
