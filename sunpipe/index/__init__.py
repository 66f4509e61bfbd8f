"""A FAISS index of the real archive: build, search, info, verify. No torch."""
