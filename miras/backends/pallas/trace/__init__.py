"""Tracing: the tile step as a program, whatever device it is compiled for."""
