"""Server processes: sockets, traffic under way, workers, reloads and stops that cost no request."""
