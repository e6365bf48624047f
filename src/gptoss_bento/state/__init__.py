"""What is stored: the only package that imports SQLAlchemy."""
