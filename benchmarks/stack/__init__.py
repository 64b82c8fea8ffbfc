"""The measured software: databases, servers of this project, servers of the original."""
