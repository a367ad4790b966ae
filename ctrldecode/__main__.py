"""`python -m ctrldecode`: the same as the command `ctrldecode`."""

from ctrldecode.cli import main

if __name__ == "__main__":
    main()
