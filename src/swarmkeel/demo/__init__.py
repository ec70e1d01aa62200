"""A whole swarm on one machine: a real DHT, stand-in servers and real sidecars."""
