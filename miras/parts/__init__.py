"""Parts: what memories, biases, retention gates and algorithms have in common."""
