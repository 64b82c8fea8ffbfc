"""What is measured: databases, servers of this project, servers of the original."""
