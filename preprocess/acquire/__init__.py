"""From a request to files in the archive: querying, transferring, exporting, book-keeping."""
