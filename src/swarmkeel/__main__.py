"""`python -m swarmkeel` is `swarmkeel`."""

from swarmkeel.cli import main

if __name__ == "__main__":
    main()
