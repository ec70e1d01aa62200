"""What is out there: wire records, spans, snapshots, and the DHT that they are read from."""
