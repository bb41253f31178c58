"""Tables of the runs in a folder."""
