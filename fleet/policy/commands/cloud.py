"""Command lines of the clouds' own programs: what reads by allow-list, and what no call may say (RT-70)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from fleet.kernel.errors import InvalidInput, PolicyDenied

CloudProgram = Literal["aws", "gcloud", "az"]

_WORD = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_AWS_VERB = re.compile(r"(list|describe)-[a-z0-9-]{1,80}")
_AWS_FURTHER = frozenset({("sts", "get-caller-identity"), ("s3", "ls")})
_GROUPS: Mapping[str, frozenset[tuple[str, ...]]] = {
    "gcloud": frozenset(
        tuple(line.split())
        for line in """
        compute instances
        compute instance-groups
        compute disks
        compute images
        compute networks
        compute networks subnets
        compute firewall-rules
        compute addresses
        compute forwarding-rules
        compute backend-services
        compute regions
        compute zones
        container clusters
        container node-pools
        run services
        run revisions
        run jobs
        functions
        sql instances
        sql databases
        storage buckets
        pubsub topics
        pubsub subscriptions
        dns managed-zones
        dns record-sets
        artifacts repositories
        artifacts docker images
        builds
        iam service-accounts
        iam roles
        logging logs
        monitoring dashboards
        projects
        services
        """.strip().splitlines()
    ),
    "az": frozenset(
        tuple(line.split())
        for line in """
        account
        acr
        aks
        aks nodepool
        appservice plan
        containerapp
        disk
        functionapp
        group
        image
        monitor metrics alert
        mysql flexible-server
        network dns zone
        network lb
        network nsg
        network nsg rule
        network public-ip
        network vnet
        network vnet subnet
        postgres flexible-server
        resource
        storage account
        vm
        vmss
        webapp
        """.strip().splitlines()
    ),
}
_VERBS = {"gcloud": frozenset({"list", "describe"}), "az": frozenset({"list", "show"})}
# Another place or account than that of the policy, a file to read, or a log with the credentials in it.
_DENIED: Mapping[str, tuple[str, ...]] = {
    "aws": (
        *("--endpoint-url", "--profile", "--ca-bundle", "--no-verify-ssl", "--debug"),
        *("--cli-input-json", "--cli-input-yaml"),
    ),
    "gcloud": (
        *("--access-token-file", "--account", "--impersonate-service-account", "--configuration", "--flags-file"),
        *("--log-http", "--credential-file-override", "--billing-project"),
    ),
    "az": ("--debug", "--verbose", "--cloud"),
}
_LOADS_A_FILE = re.compile(r"(file|fileb|https?)://|@")


class CloudCall(NamedTuple):
    """An operation taken apart: `aws_read` is a call of `aws` that reads."""

    program: CloudProgram
    is_write: bool


def cloud_call(op: str, arguments: Sequence[str]) -> CloudCall:
    """Which program the operation asks for, when its arguments are such as it may have.

    Raises:
        InvalidInput: no such operation, or a command that the program cannot have.
        PolicyDenied: an operation that reads with a command that is not in its list, or a denied option.
    """
    name, _, access = op.partition("_")
    if name not in _DENIED or access not in ("read", "write"):
        raise InvalidInput(f"cloud has no operation {op!r}; call one that is declared", op=op)
    program = cast(CloudProgram, name)
    if not arguments or not _WORD.fullmatch(arguments[0]):
        raise InvalidInput(f"{program} needs its command as the first arguments, before all options", field="arguments")
    for argument in arguments:
        _check(program, argument)
    if access == "read" and not is_read(program, arguments):
        raise PolicyDenied(
            f"{program} {' '.join(arguments[:4])[:120]} is not one of the commands that read: ask for {program}_write",
            rule_id="RT-70",
            program=program,
        )
    return CloudCall(program, access == "write")


def is_read(program: CloudProgram, arguments: Sequence[str]) -> bool:
    """Whether these arguments are a command of the read list; its words stand before every option."""
    words: list[str] = []
    for argument in arguments:
        if argument.startswith("-"):
            break
        words.append(argument)
    if program == "aws":
        # The service comes first and its operation second, always.
        return len(words) >= 2 and (bool(_AWS_VERB.fullmatch(words[1])) or (words[0], words[1]) in _AWS_FURTHER)
    verbs, groups = _VERBS[program], _GROUPS[program]
    return any(words[at] in verbs and tuple(words[:at]) in groups for at in range(1, len(words)))


def _check(program: CloudProgram, argument: str) -> None:
    option, _, value = argument.partition("=")
    # All three take the beginning of an option for the whole of it, as far as it is the only one.
    if option.startswith("--") and any(denied.startswith(option) for denied in _DENIED[program]):
        raise PolicyDenied(f"{option[:60]!r} is not allowed for {program}", rule_id="RT-70", option=option[:60])
    if _LOADS_A_FILE.match(argument) or _LOADS_A_FILE.match(value):
        raise PolicyDenied(
            f"{argument[:60]!r} would make {program} read a file or an address: write the value itself",
            rule_id="RT-70",
        )
    if any(ord(c) < 32 or ord(c) == 127 for c in argument):
        raise InvalidInput("an argument has a control character; take it out", field="arguments")
