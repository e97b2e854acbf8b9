"""Files of a saved index: manifest, arrays, journal and lock."""
