"""What a person runs by hand, and what tests borrow of it. CONTRIBUTING.md has one line for each."""
