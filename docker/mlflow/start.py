"""Start MLflow's server on PostgreSQL; the arguments are those of ``mlflow server``.

MLflow wants the address of its database as an option and in a file, and the driver wants the password in it. So both
are made here, from DATABASE (``user@host:port/name``) and DATABASE_PASSWORD: the option as a variable, which no list of
processes shows, the file in /tmp, for this user's eyes only.
"""

import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote


def main() -> None:
    """Put the password into its places and become the server."""
    user, _, place = os.environ["DATABASE"].partition("@")
    uri = f"postgresql+pg8000://{user}:{quote(os.environ.pop('DATABASE_PASSWORD'), safe='')}@{place}"
    settings = Path(os.environ["MLFLOW_AUTH_CONFIG_PATH"]).read_text(encoding="utf-8")
    private = Path(tempfile.mkdtemp(prefix="mlflow-")) / "auth.ini"  # the folder is readable by its owner alone
    private.write_text(f"{settings}database_uri = {uri.replace('%', '%%')}\n", encoding="utf-8")
    os.environ |= {"MLFLOW_AUTH_CONFIG_PATH": str(private), "MLFLOW_BACKEND_STORE_URI": uri}
    os.execvp("mlflow", ["mlflow", "server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
