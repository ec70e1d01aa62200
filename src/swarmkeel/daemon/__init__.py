"""The loop: snapshot, decide, guard, move, verify, record; metrics and HTTP beside it."""
