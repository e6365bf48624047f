"""The routes of the job API and their description."""
