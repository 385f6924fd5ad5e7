"""``python -m serving.patchcore serve``: the S4 service's process."""

from serving.patchcore.cli import main

if __name__ == "__main__":
    main()
