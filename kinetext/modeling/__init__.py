"""Models. Files here are saved with every checkpoint as remote code, so they import only from this folder."""
