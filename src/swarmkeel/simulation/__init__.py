"""Many servers in simulated time, running the production code of `balance` and `daemon` against a simulated DHT."""
