"""Write tests/golden/permissions.json: what each role may call in each phase under the packaged policy (RT-36)."""

from __future__ import annotations

import json
from pathlib import Path

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.policy.roles import load_roles
from fleet.policy.rules.config import load_policy
from fleet.policy.rules.matrix import permissions

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "permissions.json"


def main() -> int:
    """Write the file again."""
    files = ConfigFiles(packaged_directory())
    policy = load_policy(files.document("policy.yaml"), roles=load_roles(files.document("roles.yaml")))
    GOLDEN.write_text(json.dumps(permissions(policy), indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
