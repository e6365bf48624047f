"""`python -m gptoss_bento`: the command line where no console script is installed, such as in a Bento."""

from gptoss_bento.cli.main import run

run()
