"""Start a cloud's program with the credentials of one file, in folders of its own (RT-65, RT-70).

    cloud_call.py <aws|gcloud|az> <credentials file> <arguments...>

The file of aws is a credentials file, that of gcloud an access token, that of az a service principal as JSON (appId,
password, tenant). Exits as the program does, or with 127 when there is none. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

MISSING = 127
PACKAGES = {"aws": "awscli", "gcloud": "google-cloud-cli", "az": "azure-cli"}


def environment(program: str, credentials: str, present: Mapping[str, str]) -> dict[str, str]:
    """The variables that point the program to its credentials, and all that it writes to a folder of the run."""
    folder = present.get("TMPDIR", "/tmp")
    own = {
        "aws": {
            "AWS_SHARED_CREDENTIALS_FILE": credentials,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_PAGER": "",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        "gcloud": {
            "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": credentials,
            "CLOUDSDK_CONFIG": f"{folder}/gcloud",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        },
        "az": {"AZURE_CONFIG_DIR": f"{folder}/azure", "AZURE_CORE_NO_COLOR": "true"},
    }
    return {**present, **own[program]}


def sign_in(path: str, credentials: str, env: Mapping[str, str]) -> int:
    """The exit code of signing in with a service principal. Az keeps tokens of its own and takes no file of them."""
    principal = json.loads(Path(credentials).read_text(encoding="utf-8"))
    password = Path(env["AZURE_CONFIG_DIR"]) / "password"
    password.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    password.write_text(principal["password"], encoding="utf-8")
    who = ["--username", principal["appId"], "--tenant", principal["tenant"], "--password", f"@{password}"]
    argv = [path, "login", "--service-principal", *who, "--output", "none"]
    code = subprocess.run(argv, env=dict(env), check=False).returncode
    password.unlink()
    return code


def main(argv: Sequence[str], start: Callable[[str, list[str], dict[str, str]], int] = os.execve) -> int:
    """Become the program; returns only when that cannot be."""
    program, credentials, arguments = argv[0], argv[1], list(argv[2:])
    path = shutil.which(program)
    if path is None:
        sys.stderr.write(
            f"{program} is not installed where the sandbox can see it: install the system package "
            f"{PACKAGES[program]} on this node\n"
        )
        return MISSING
    env = environment(program, credentials, os.environ)
    if program == "az" and (code := sign_in(path, credentials, env)) != 0:
        return code
    return start(path, [program, *arguments], env)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
