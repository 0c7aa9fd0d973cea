"""`python -m dhm_cli` is `dhm`."""

from dhm_cli.cli.main import main

if __name__ == "__main__":
    main()
