"""Entry point of `python -m pilot` and of the installed `pilot`."""

from __future__ import annotations

import os
import sys

from transport.errors import OperatorError, PilotError, UserError

EXIT_USAGE = 2
EXIT_UNABLE = 3


def main() -> None:
    """Run the command line; whatever goes wrong is a sentence and an exit code."""
    from pilot.cli.app import app

    try:
        try:
            app()
        finally:
            # What can't be printed must be told from here, not by the interpreter's end.
            sys.stdout.flush()
    except UserError as error:
        _fail(str(error), EXIT_USAGE)
    except (OperatorError, PilotError) as error:
        _fail(str(error), EXIT_UNABLE)
    except BrokenPipeError:
        # Whoever read our output has enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(EXIT_UNABLE)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        # If it was our output that failed, the interpreter's own last flush must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", EXIT_UNABLE)
    except Exception as error:
        if os.environ.get("PILOT_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}"
        _fail(f"a mistake of the pilot's own: {what} (PILOT_DEBUG=1 tells more)", EXIT_UNABLE)


def _fail(sentence: str, code: int) -> None:
    sys.stderr.write(f"pilot: {sentence}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
