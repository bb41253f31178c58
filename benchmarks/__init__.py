"""Speed and memory, ours beside peers: each file says its command, its cost and what it shows."""
