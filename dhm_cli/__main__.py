"""`python -m dhm_cli` is `dhm`."""

from dhm_cli.runtime.interruption import exit_when_interrupted


def main() -> None:
    """Entry point of the command `dhm`."""
    exit_when_interrupted()  # before the imports, during which Ctrl-C would end in a traceback
    from dhm_cli.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
