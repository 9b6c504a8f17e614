"""Look for secrets in the files that git knows, and for known holes in the tested versions; used by ``.ci/run``.

Run in an environment with detect-secrets and pip-audit. Ends with 1 when something was found; where the list of known
holes is out of reach, that is said and is no failure.
"""

import json
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
NAMES_ONLY = r"^(tests|pipelines/compiled)/|^pipelines/cluster\.yaml$"
"""Files with names of secrets, or with planted ones; tests of their own look for secrets in what is compiled."""


def find_secrets() -> list[str]:
    """Return file, line and kind of everything that looks like a secret; checksums do, so entropy is not asked."""
    options = ["--disable-plugin", "HexHighEntropyString", "--disable-plugin", "Base64HighEntropyString"]
    command = [PROGRAMS / "detect-secrets", "scan", *options, "--exclude-files", NAMES_ONLY]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["results"]
    return [f"{file}:{one['line_number']}: {one['type']}" for file, each in found.items() for one in each]


def find_holes() -> tuple[list[str], int]:
    """Return the known holes, and how many versions could be looked up."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    command = [PROGRAMS / "pip-audit", "--requirement", "constraints.txt", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        known = [each for each in json.loads(done.stdout)["dependencies"] if "vulns" in each]
    except ValueError:  # nothing but an error
        known = []
    holes = [f"{each['name']} {each['version']}: {hole['id']}" for each in known for hole in each["vulns"]]
    return holes, len(known)


def main() -> None:
    """Print what was found."""
    secrets = find_secrets()
    holes, looked_up = find_holes()
    for line in [*secrets, *holes]:
        print(line)
    print(f"{len(secrets)} secrets in files")
    if looked_up:
        print(f"{len(holes)} known holes in {looked_up} versions")
    else:
        print("Versions are not checked: the list of known holes is out of reach.")
    sys.exit(1 if secrets or holes else 0)


if __name__ == "__main__":
    main()
