"""``python -m deploy_kit`` is ``deploykit``."""

from deploy_kit.cli import main

if __name__ == "__main__":
    main()
