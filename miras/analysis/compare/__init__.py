"""Learning curves of several runs, in one figure and one page."""
