"""Labelled sequences: tables, folders of classes and intervals of a genome, and their splits."""
