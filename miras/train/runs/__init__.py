"""A run on disk: its folder, what it was started with, and how it resumes."""
