"""How a server is told: the control protocol, its client in the sidecar and its side in the server."""
