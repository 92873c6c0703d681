"""`python -m pipeline …` is `isomill …`."""

import sys

if __name__ == "__main__":
    try:
        from pipeline.cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(main())
