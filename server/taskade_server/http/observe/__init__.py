"""What operators see: metrics, traces and a log line for each request."""
