"""Text as data: which files a source names, how they are read, and the documents they become."""
